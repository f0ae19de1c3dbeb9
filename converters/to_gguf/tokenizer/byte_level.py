"""Byte-level BPE ("gpt2" in llama.cpp) from tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.tokenizer.pretokenizer_steps import recognise
from converters.to_gguf.tokenizer.pretokenizers import check_name
from converters.to_gguf.tokenizer.source import Source, Vocabulary
from converters.to_gguf.tokenizer.token_table import build_table
from ropeconv.errors import TokenizerError

NFC_LIMIT = (
    "tokenizer.json normalises to NFC and llama.cpp does not: decomposed accents get other tokens"
)


def read_byte_level(source: Source, *, vocab_size: int, pre: str | None) -> Vocabulary:
    """Tokens, merges and pre-tokenizer name. Raises TokenizerError for what llama.cpp's BPE would
    not reproduce.
    """
    model = source.tokenizer["model"]
    check_plain_bpe(model)
    limits = _read_normalizer(source.tokenizer.get("normalizer"))
    name = check_name(pre) if pre else ""
    if not pre:
        entry = recognise(source.tokenizer, merges_reach_all=lambda: merges_reach_all(source))
        name = entry.name
        limits += [entry.limit] if entry.limit else []
    tokens, types = build_table(source, model["vocab"], vocab_size=vocab_size)
    return Vocabulary("gpt2", name, tokens, types, merges=write_merges(model), limits=limits)


def check_plain_bpe(model: Mapping[str, Any]) -> None:
    """Refuse the BPE options that llama.cpp has no word for."""
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            raise TokenizerError(
                f"tokenizer.json BPE sets {option}={model[option]!r}, which llama.cpp does not "
                f"know; re-save without it"
            )


def read_merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Merges as pairs, from either spelling: `"a b"` or `["a", "b"]`."""
    pairs = [
        tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]
    ]
    bad = next((pair for pair in pairs if len(pair) != 2), None)
    if bad is not None:
        raise TokenizerError(
            f"tokenizer.json has a merge that is not a pair: {bad!r}; save the tokenizer again"
        )
    return pairs


def write_merges(model: Mapping[str, Any]) -> list[str]:
    """Merges as GGUF spells them, `"a b"`."""
    merges = [" ".join(merge) if not isinstance(merge, str) else merge for merge in model["merges"]]
    bad = next((merge for merge in merges if merge.count(" ") != 1), None)
    if bad is not None:
        raise TokenizerError(
            f"tokenizer.json merge {bad!r} is not two parts without spaces, as GGUF needs; save "
            f"the tokenizer again"
        )
    return merges


def merges_reach_all(source: Source) -> bool:
    """Whether the merges, applied to the characters of each token, build that token.

    Then `ignore_merges` changes nothing.
    """
    from tokenizers.models import BPE

    model = source.tokenizer["model"]
    # added tokens are cut out of the text before any merge
    words = model["vocab"].keys() - {token.content for token in source.added.values()}
    bpe = BPE(vocab=model["vocab"], merges=read_merges(model))
    return all(len(bpe.tokenize(token)) == 1 for token in words)


def _read_normalizer(normalizer: Mapping[str, Any] | None) -> list[str]:
    parts = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    unknown = [part.get("type") for part in parts if part.get("type") != "NFC"]
    if unknown:
        raise TokenizerError(
            f"tokenizer.json normalizer {unknown[0]!r} has no counterpart in llama.cpp's BPE; "
            f"re-save without it"
        )
    return [NFC_LIMIT] if parts else []
