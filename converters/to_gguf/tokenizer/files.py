"""`tokenizer.*` keys of a GGUF file -> tokenizer files of a Hugging Face folder: the inverse of `tokenizer.py`.

The files tokenise as llama.cpp does with the keys (`src/llama-vocab.cpp`), whatever the original's files said beside
that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from converters.to_gguf.tokenizer.byte_fallback import SPACE
from converters.to_gguf.tokenizer.special_tokens import ID_KEYS
from converters.to_gguf.tokenizer.token_table import (
    BYTE_TOKENS,
    CONTROL,
    NORMAL,
    PHI3_NAMES,
    PHI3_PLAIN,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)
from converters.to_gguf.tokenizer.source import paused_collector
from converters.to_gguf.tokenizer.pretokenizers import BY_NAME, write_pre_tokenizer
from ropeconv.errors import TokenizerError, unknown_name

_ADDED = (UNKNOWN, CONTROL, USER_DEFINED)
# llama-vocab.cpp, "default special tokens"; the ones of "gpt2" (11 and 11) fit no model and are refused instead.
_DEFAULT_IDS: dict[str, dict[str, int]] = {"llama": {"bos": 1, "eos": 2, "unk": 0}, "gpt2": {}}


@paused_collector()
def huggingface_tokenizer(kv: Mapping[str, Any]) -> dict[str, bytes]:
    """File name -> content: tokenizer.json, tokenizer_config.json, special_tokens_map.json, generation_config.json.

    `kv`: the GGUF metadata as plain Python values. Raises TokenizerError for a tokenizer model or pre-tokenizer
    without a Hugging Face counterpart and for missing or contradictory keys.
    """
    tokens, types = _read_tokens(kv)
    ids = _read_ids(kv, len(tokens))
    names = {name: tokens[index] for name, index in ids.items()}
    kind = str(kv["tokenizer.ggml.model"])
    tokenizer = _BUILDERS[kind](kv, tokens, types)
    bos, eos = _read_around(kv, names)
    post = _post_processor({name: (names[name], ids[name]) for name, on in (("bos", bos), ("eos", eos)) if on})
    shell = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": _added_tokens(kv, tokens, types)}
    content = {
        "tokenizer.json": shell | tokenizer | {"post_processor": post},
        "tokenizer_config.json": _settings(kv, names, bos=bos, eos=eos),
        "special_tokens_map.json": _special_map(names),
        "generation_config.json": _generation(ids),
    }
    return {name: json.dumps(value, ensure_ascii=False, indent=1).encode() for name, value in content.items()}


def _read_tokens(kv: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    model = kv.get("tokenizer.ggml.model")
    if model not in _BUILDERS:
        raise TokenizerError(unknown_name("Hugging Face counterpart of the GGUF tokenizer model", str(model), _BUILDERS))
    if "tokenizer.ggml.tokens" not in kv:
        raise TokenizerError(
            "the GGUF file has no tokenizer.ggml.tokens; it was written without a vocabulary: give a tokenizer beside it"
        )
    tokens = list(kv["tokenizer.ggml.tokens"])
    types = list(kv.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens))
    if len(types) != len(tokens):
        raise TokenizerError(
            f"the GGUF file has {len(tokens)} tokens and {len(types)} token types; it is damaged, convert it again"
        )
    return tokens, types


def _read_ids(kv: Mapping[str, Any], size: int) -> dict[str, int]:
    ids = dict(_DEFAULT_IDS[kv["tokenizer.ggml.model"]])
    ids |= {name: int(kv[key]) for name, key in ID_KEYS.items() if key in kv}
    bad = next((name for name, index in ids.items() if not 0 <= index < size), None)
    if bad is not None:
        raise TokenizerError(
            f"the GGUF file's {bad} token id {ids[bad]} is outside its vocabulary of {size}; correct {ID_KEYS[bad]}"
        )
    if "eos" not in ids:
        raise TokenizerError(f"the GGUF file has no {ID_KEYS['eos']}; set it with llama.cpp's gguf_set_metadata or convert again")
    return ids


def _read_around(kv: Mapping[str, Any], names: Mapping[str, str]) -> tuple[bool, bool]:
    """(bos before, eos after), with the loader's defaults where the file is silent."""
    pre = BY_NAME.get(str(kv.get("tokenizer.ggml.pre")))
    default = kv["tokenizer.ggml.model"] == "llama" or (pre is not None and pre.add_bos)
    bos = bool(kv.get("tokenizer.ggml.add_bos_token", default))
    if bos and "bos" not in names:
        raise TokenizerError(f"the GGUF file wants a bos token before the text and has no {ID_KEYS['bos']}; correct its metadata")
    return bos, bool(kv.get("tokenizer.ggml.add_eos_token", False))


def _vocab(tokens: Sequence[str], types: Sequence[int]) -> dict[str, int]:
    """Text -> id without the rows that only fill up the embedding."""
    rows = [
        (text, index)
        for index, (text, kind) in enumerate(zip(tokens, types, strict=True))
        if kind != UNUSED or text != f"[PAD{index}]"
    ]
    vocab = dict(rows)
    if len(vocab) < len(rows):
        raise TokenizerError(
            "the GGUF file gives one text to two tokens, which no tokenizer.json can say; it is damaged, convert it again"
        )
    return vocab


def _bpe(vocab: Mapping[str, int], merges: list[list[str]], **options: Any) -> dict[str, Any]:
    plain = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    flags = {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    return {"type": "BPE", **plain, **flags, **options, "vocab": dict(vocab), "merges": merges}


def _build_byte_level(kv: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]) -> dict[str, Any]:
    name = str(kv.get("tokenizer.ggml.pre", "default"))
    if name not in BY_NAME:
        raise TokenizerError(unknown_name("tokenizer.json structure for the pre-tokenizer", name, BY_NAME))
    if "tokenizer.ggml.merges" not in kv:
        raise TokenizerError("the GGUF file has no tokenizer.ggml.merges; it is damaged, convert it again")
    merges = [merge.split(" ", 1) for merge in kv["tokenizer.ggml.merges"]]
    decoder = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "normalizer": None,
        "pre_tokenizer": write_pre_tokenizer(BY_NAME[name]),
        "decoder": decoder,
        "model": _bpe(_vocab(tokens, types), merges, ignore_merges=BY_NAME[name].ignore_merges),
    }


def _build_byte_fallback(kv: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]) -> dict[str, Any]:
    vocab = _vocab(tokens, types)
    missing = next((token for token in BYTE_TOKENS if token not in vocab), None)
    if missing is not None:
        raise TokenizerError(f"the GGUF file's vocabulary lacks the byte token {missing}; it is damaged, convert it again")
    prefix = bool(kv.get("tokenizer.ggml.add_space_prefix", True))
    steps: list[dict[str, Any]] = [{"type": "Prepend", "prepend": SPACE}] if prefix else []
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    decoders += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    unk = next((text for text, kind in zip(tokens, types, strict=True) if kind == UNKNOWN), None)
    merges = _merges_from_scores(vocab, kv.get("tokenizer.ggml.scores"), types)
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": _bpe(vocab, merges, unk_token=unk, fuse_unk=True, byte_fallback=True),
    }


def _merges_from_scores(vocab: Mapping[str, int], scores: Sequence[float] | None, types: Sequence[int]) -> list[list[str]]:
    """Every pair of tokens whose joint text is a token, best score first: llama.cpp's order.

    Added tokens are cut out of the text before, so only those with U+2581, which the text never shows, are ever built.
    """
    if scores is None or len(scores) != len(types):
        raise TokenizerError(
            "the GGUF file's tokenizer.ggml.scores is missing or of another length than its tokens; convert it again"
        )
    found: list[tuple[float, int, list[list[str]]]] = []
    for text, index in vocab.items():
        if types[index] in _ADDED and (SPACE not in text or types[index] != USER_DEFINED):
            continue
        pairs = [[text[:cut], text[cut:]] for cut in range(1, len(text)) if text[:cut] in vocab and text[cut:] in vocab]
        if pairs:
            pairs.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
            found.append((-scores[index], index, pairs))
    found.sort(key=lambda entry: entry[:2])
    for score, group in groupby(found, key=lambda entry: entry[0]):
        same = list(group)
        if len(same) > 1 and all(types[index] == NORMAL for _, index, _ in same):
            raise TokenizerError(
                f"{len(same)} tokens of the GGUF file share the score {-score}: merges, which have an order, cannot say that"
            )
    return [pair for _, _, pairs in found for pair in pairs]


_BUILDERS: dict[str, Callable[[Mapping[str, Any], Sequence[str], Sequence[int]], dict[str, Any]]] = {
    "gpt2": _build_byte_level,
    "llama": _build_byte_fallback,
}


def _added_tokens(kv: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]) -> list[dict[str, Any]]:
    strips = any(part in str(kv.get("general.name", "")).lower() for part in PHI3_NAMES)
    plain = {"single_word": False, "lstrip": False, "normalized": False}
    return [
        {
            "id": index,
            "content": text,
            **plain,
            "rstrip": strips and text not in PHI3_PLAIN,
            "special": kind != USER_DEFINED,
        }
        for index, (text, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in _ADDED
    ]


def _post_processor(around: Mapping[str, tuple[str, int]]) -> dict[str, Any] | None:
    if not around:
        return None
    special = {text: {"id": text, "ids": [index], "tokens": [text]} for text, index in around.values()}

    def wrap(sequence: str, type_id: int) -> list[dict[str, Any]]:
        before = [{"SpecialToken": {"id": around["bos"][0], "type_id": type_id}}] if "bos" in around else []
        after = [{"SpecialToken": {"id": around["eos"][0], "type_id": type_id}}] if "eos" in around else []
        return [*before, {"Sequence": {"id": sequence, "type_id": type_id}}, *after]

    return {
        "type": "TemplateProcessing",
        "single": wrap("A", 0),
        "pair": wrap("A", 0) + wrap("B", 1),
        "special_tokens": special,
    }


def _special_map(names: Mapping[str, str]) -> dict[str, str]:
    return {f"{name}_token": text for name, text in names.items() if name not in ("eot", "eom")}


def _settings(kv: Mapping[str, Any], names: Mapping[str, str], *, bos: bool, eos: bool) -> dict[str, Any]:
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    settings |= _special_map(names) | {"add_bos_token": bos, "add_eos_token": eos}
    main, head = kv.get("tokenizer.chat_template"), "tokenizer.chat_template."
    named = [{"name": key[len(head) :], "template": kv[key]} for key in kv if key.startswith(head)]
    if named:
        settings["chat_template"] = ([{"name": "default", "template": main}] if main is not None else []) + named
    elif main is not None:
        settings["chat_template"] = main
    return settings


def _generation(ids: Mapping[str, int]) -> dict[str, Any]:
    ends = list(dict.fromkeys(ids[name] for name in ("eos", "eot", "eom") if name in ids))
    found: dict[str, Any] = {f"{name}_token_id": ids[name] for name in ("bos", "pad") if name in ids}
    return found | {"eos_token_id": ends if len(ends) > 1 else ends[0]}
