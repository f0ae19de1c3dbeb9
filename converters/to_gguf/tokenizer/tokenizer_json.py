"""The part of a tokenizer.json that cuts a text into tokens, from the keys of a GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from converters.to_gguf.tokenizer.byte_fallback import SPACE
from converters.to_gguf.tokenizer.pretokenizer_steps import write_pre_tokenizer
from converters.to_gguf.tokenizer.pretokenizers import BY_NAME
from converters.to_gguf.tokenizer.token_table import (
    ADDED,
    BYTE_TOKENS,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)
from ropeconv.errors import TokenizerError, unknown_name


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
            "the GGUF file gives one text to two tokens, which no tokenizer.json can say; it is "
            "damaged, convert it again"
        )
    return vocab


def _bpe(vocab: Mapping[str, int], merges: list[list[str]], **options: Any) -> dict[str, Any]:
    plain = {
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
    }
    flags = {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    return {"type": "BPE", **plain, **flags, **options, "vocab": dict(vocab), "merges": merges}


def _build_byte_level(
    kv: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]
) -> dict[str, Any]:
    name = str(kv.get("tokenizer.ggml.pre", "default"))
    if name not in BY_NAME:
        raise TokenizerError(
            unknown_name("tokenizer.json structure for the pre-tokenizer", name, BY_NAME)
        )
    if "tokenizer.ggml.merges" not in kv:
        raise TokenizerError(
            "the GGUF file has no tokenizer.ggml.merges; it is damaged, convert it again"
        )
    merges = [merge.split(" ", 1) for merge in kv["tokenizer.ggml.merges"]]
    decoder = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return {
        "normalizer": None,
        "pre_tokenizer": write_pre_tokenizer(BY_NAME[name]),
        "decoder": decoder,
        "model": _bpe(_vocab(tokens, types), merges, ignore_merges=BY_NAME[name].ignore_merges),
    }


def _build_byte_fallback(
    kv: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]
) -> dict[str, Any]:
    vocab = _vocab(tokens, types)
    missing = next((token for token in BYTE_TOKENS if token not in vocab), None)
    if missing is not None:
        raise TokenizerError(
            f"the GGUF file's vocabulary lacks the byte token {missing}; it is damaged, convert it "
            f"again"
        )
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


def _merges_from_scores(
    vocab: Mapping[str, int], scores: Sequence[float] | None, types: Sequence[int]
) -> list[list[str]]:
    """Every pair of tokens whose joint text is a token, best score first: llama.cpp's order.

    Added tokens are cut out of the text before, so only those with U+2581, which the text never
    shows, are ever built.
    """
    if scores is None or len(scores) != len(types):
        raise TokenizerError(
            "the GGUF file's tokenizer.ggml.scores is missing or of another length than its "
            "tokens; convert it again"
        )
    found = [(-scores[index], index, pairs) for index, pairs in _pairs(vocab, types)]
    found.sort(key=lambda entry: entry[:2])
    for score, group in groupby(found, key=lambda entry: entry[0]):
        same = list(group)
        if len(same) > 1 and all(types[index] == NORMAL for _, index, _ in same):
            raise TokenizerError(
                f"{len(same)} tokens of the GGUF file share the score {-score}: merges, which have "
                f"an order, cannot say that"
            )
    return [pair for _, _, pairs in found for pair in pairs]


def _pairs(vocab: Mapping[str, int], types: Sequence[int]) -> Iterator[tuple[int, list[list[str]]]]:
    """(id, the pairs of tokens that make its text), for every token that a merge may build."""
    for text, index in vocab.items():
        if types[index] in ADDED and (SPACE not in text or types[index] != USER_DEFINED):
            continue
        pairs = [
            [text[:cut], text[cut:]]
            for cut in range(1, len(text))
            if text[:cut] in vocab and text[cut:] in vocab
        ]
        if pairs:
            pairs.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
            yield index, pairs


BUILDERS: dict[str, Callable[[Mapping[str, Any], Sequence[str], Sequence[int]], dict[str, Any]]] = {
    "gpt2": _build_byte_level,
    "llama": _build_byte_fallback,
}
"""tokenizer.ggml.model -> (keys, tokens, types) -> normalizer, pre_tokenizer, decoder, model."""
