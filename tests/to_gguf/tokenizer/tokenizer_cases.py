"""Tiny tokenizers trained on the spot, and the comparison of llama.cpp on a GGUF's keys with the
original.
"""

from __future__ import annotations

import ctypes
import json
import pydoc_data.topics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from ropeconv.proof.tokens.texts import SCRIPT_SAMPLES

SPECIALS = ["<|begin|>", "<|end_text|>", "<|im_start|>", "<|im_end|>"]
TEXTS = [
    *SCRIPT_SAMPLES.values(),
    pydoc_data.topics.topics["lambda"],
    "<|im_start|>user\nlong context?<|im_end|>\n<|im_start|>assistant\n",
    "no space<|im_end|>between  <|im_end|>  them",
    "<tool> not special </tool>",
]


@cache
def corpus() -> tuple[str, ...]:
    """Training text: the samples twice (so that every script gets merges) and a part of Python's
    own help.
    """
    topics = sorted(pydoc_data.topics.topics.items())
    return (
        *SCRIPT_SAMPLES.values(),
        *SCRIPT_SAMPLES.values(),
        *(text[:3000] for _, text in topics[:40]),
    )


_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}

# --- tokenizers -----------------------------------------------------------------------------------


def train_byte_level(
    pre_tokenizer: Mapping[str, Any],
    *,
    ignore_merges: bool = False,
    normalizer: Mapping[str, Any] | None = None,
    bos: bool = False,
) -> dict[str, Any]:
    """A tokenizer.json with 1,500 byte-level tokens, trained by the tokenizers library under
    `pre_tokenizer`.
    """
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.processors import TemplateProcessing
    from tokenizers.trainers import BpeTrainer

    shell = json.loads(Tokenizer(BPE(ignore_merges=ignore_merges)).to_str())
    shell |= {"pre_tokenizer": pre_tokenizer, "normalizer": normalizer, "decoder": _BYTES}
    tokenizer = Tokenizer.from_str(json.dumps(shell))
    trainer = BpeTrainer(
        vocab_size=1500,
        special_tokens=SPECIALS,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_tokens(
        [
            AddedToken("<tool>", special=False, normalized=False),
            AddedToken("</tool>", special=False, normalized=False),
        ]
    )
    if bos:
        tokenizer.post_processor = TemplateProcessing(
            single="<|begin|> $A", pair="<|begin|> $A $B", special_tokens=[("<|begin|>", 0)]
        )
    return dict(json.loads(tokenizer.to_str()))


@cache
def train_sentencepiece(folder: Path, kind: str, **options: Any) -> bytes:
    """A tokenizer.model with 900 pieces: `kind` is bpe or unigram; options as spm_train's."""
    import sentencepiece

    folder.mkdir(exist_ok=True, parents=True)
    text = folder / "corpus.txt"
    text.write_text(
        "\n".join(line for part in corpus() for line in part.splitlines() if line.strip())[:120_000]
    )
    settings = {
        "vocab_size": 900,
        "character_coverage": 0.98,
        "num_threads": 1,
        "minloglevel": 2,
        "user_defined_symbols": ["<sep>"],
    } | options
    train: Any = sentencepiece.SentencePieceTrainer.train
    train(input=str(text), model_prefix=str(folder / kind), model_type=kind, **settings)
    return (folder / f"{kind}.model").read_bytes()


LLAMA_LIKE = {
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "split_digits": True,
}


def byte_fallback_json(model: bytes, *, scheme: str = "prepend") -> dict[str, Any]:
    """tokenizer.json of a SentencePiece BPE model, merges made by transformers' own converter.

    `scheme` names the spelling.
    """
    import sentencepiece
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from transformers.convert_slow_tokenizer import generate_merges

    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocab = {pieces.id_to_piece(index): index for index in range(pieces.vocab_size())}
    scores = [(piece, pieces.get_score(index)) for piece, index in vocab.items()]
    merges = generate_merges(vocab, scores, skip_tokens=["<unk>", "<s>", "</s>"])
    bpe = BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    said = json.loads(Tokenizer(bpe).to_str()) | _SCHEMES[scheme]
    said["added_tokens"] = [
        {
            "id": index,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": index < 3,
        }
        for index, text in enumerate(["<unk>", "<s>", "</s>", "<sep>"])
    ]
    return dict(said)


_GEMMA_SPLIT = {
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithPrevious",
    "invert": False,
}
_METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
_SCHEMES: dict[str, dict[str, Any]] = {
    "prepend": {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": "▁"}, _REPLACE],
        }
    },
    "gemma": {"normalizer": _REPLACE, "pre_tokenizer": _GEMMA_SPLIT},
    "metaspace": {"pre_tokenizer": _METASPACE},
}


def files_of(tokenizer: Mapping[str, Any], **settings: Any) -> dict[str, bytes]:
    """The folder's small files for a tokenizer.json and the entries of tokenizer_config.json."""
    return {
        "tokenizer.json": json.dumps(tokenizer).encode(),
        "tokenizer_config.json": json.dumps(settings).encode(),
    }


# --- llama.cpp ------------------------------------------------------------------------------------


def write_vocab_gguf(path: Path, keys: Iterable[Any], *, name: str = "tiny") -> Path:
    """A GGUF file without tensors: the few numbers that llama.cpp's loader wants, and `keys`."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(8)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    for entry in keys:
        writer.add_key_value(entry.key, entry.value, entry.type, sub_type=entry.sub_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


class LlamaVocab:
    """The tokenizer of a GGUF file in llama.cpp, vocabulary only."""

    def __init__(self, path: Path) -> None:
        import llama_cpp

        self._api = llama_cpp
        llama_cpp.llama_log_set(_SILENT, ctypes.c_void_p(0))
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        assert self._model, f"llama.cpp does not load {path}"
        self.vocab = llama_cpp.llama_model_get_vocab(self._model)

    def __enter__(self) -> LlamaVocab:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._api.llama_model_free(self._model)

    def __len__(self) -> int:
        return int(self._api.llama_vocab_n_tokens(self.vocab))

    def encode(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        raw = text.encode()
        room = (ctypes.c_int32 * (len(raw) + 8))()
        count = self._api.llama_tokenize(
            self.vocab, raw, len(raw), room, len(room), add_special, parse_special
        )
        assert count >= 0
        return list(room[:count])

    def text(self, index: int) -> str:
        return bytes(self._api.llama_vocab_get_text(self.vocab, index)).decode()

    def special(self, name: str) -> int:
        return int(getattr(self._api, f"llama_vocab_{name}")(self.vocab))


def _silent_log() -> Any:
    import llama_cpp

    return llama_cpp.llama_log_callback(lambda *_: None)


_SILENT = _silent_log()


# --- comparison -----------------------------------------------------------------------------------

Encode = Callable[[str, bool], Sequence[int]]


def huggingface_encode(tokenizer: Mapping[str, Any] | bytes) -> Encode:
    """`encode(text, add_special_tokens)` of the tokenizers library for a tokenizer.json."""
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_str(
        tokenizer.decode() if isinstance(tokenizer, bytes) else json.dumps(tokenizer)
    )
    return lambda text, add: list(loaded.encode(text, add_special_tokens=add).ids)


def compare_tokenizers(
    path: Path,
    encode: Encode,
    *,
    texts: Iterable[str] = TEXTS,
    tokens: Mapping[int, str] | None = None,
    special: Mapping[str, int] | None = None,
) -> list[str]:
    """Every difference between llama.cpp on `path` and the original, one line each; [] is
    agreement.

    Compared: ids of every text with and without the special tokens around it, the text of every
    token in `tokens`, and the ids in `special` (bos, eos, ...).
    """
    faults: list[str] = []
    with LlamaVocab(path) as vocab:
        for text in texts:
            for add in (False, True):
                got, want = vocab.encode(text, add_special=add), list(encode(text, add))
                if got != want:
                    at = next(
                        (i for i, (a, b) in enumerate(zip(got, want, strict=False)) if a != b),
                        min(len(got), len(want)),
                    )
                    faults.append(
                        f"ids of {text[:30]!r} (special tokens {add}) at {at}: llama.cpp "
                        f"{got[at : at + 4]}, original {want[at : at + 4]}"
                    )
        for index, text in (tokens or {}).items():
            if vocab.text(index) != text:
                faults.append(f"token {index}: llama.cpp {vocab.text(index)!r}, original {text!r}")
        for name, index in (special or {}).items():
            if vocab.special(name) != index:
                faults.append(f"{name}: llama.cpp {vocab.special(name)}, original {index}")
    return faults


def texts_by_id(tokenizer: Mapping[str, Any]) -> dict[int, str]:
    """Every token of a tokenizer.json by id, as the tokenizers library lists them."""
    from tokenizers import Tokenizer

    return {
        index: text
        for text, index in Tokenizer.from_str(json.dumps(tokenizer))
        .get_vocab(with_added_tokens=True)
        .items()
    }
