"""The pre-tokenizer of a tokenizer.json as the steps of `pretokenizers.py`, and steps as one."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from converters.to_gguf.tokenizer.pretokenizers import (
    AFTER_BYTES,
    BY_STRUCTURE,
    CONTRACTIONS,
    CONTRACTIONS_SPELT,
    COVERING,
    DIGIT,
    GPT2,
    HUNDREDS,
    NUMBER,
    PRE_TOKENIZERS,
    PUNCTUATION,
    PreTokenizer,
)
from ropeconv.errors import TokenizerError


def recognise(
    tokenizer: Mapping[str, Any], *, merges_reach_all: Callable[[], bool]
) -> PreTokenizer:
    """The entry that does what this tokenizer.json says.

    `merges_reach_all` answers whether the merges alone build every token of the vocabulary: then
    `ignore_merges` changes nothing and either setting of it is the same tokenizer. Raises
    TokenizerError naming the structure and the nearest names.
    """
    steps = read_steps(tokenizer.get("pre_tokenizer"))
    ignore = bool(tokenizer["model"].get("ignore_merges"))
    found = BY_STRUCTURE.get((steps, ignore))
    if found is None:
        other = BY_STRUCTURE.get((steps, not ignore))
        if other is not None and merges_reach_all():
            return other
        raise TokenizerError(_unrecognised(steps, ignore=ignore))
    return found


def read_steps(pre_tokenizer: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The pre-tokenizer of a tokenizer.json as regular expressions in canonical spelling."""
    if pre_tokenizer is None:
        raise TokenizerError(
            "tokenizer.json has a byte-level vocabulary and no pre_tokenizer; pass --pre NAME to "
            "name one"
        )
    steps: list[str] = []
    in_bytes = False
    for part in _flatten(pre_tokenizer):
        kind = str(part.get("type"))
        if kind not in _READERS:
            raise TokenizerError(
                f"tokenizer.json pre_tokenizer {kind!r} has no counterpart in llama.cpp; pass "
                f"--pre NAME to override"
            )
        found = _READERS[kind](part)
        steps += [
            step if step in (GPT2, HUNDREDS) or not in_bytes else AFTER_BYTES + step
            for step in found
        ]
        in_bytes = in_bytes or kind == "ByteLevel"
    return tuple(steps)


def write_pre_tokenizer(entry: PreTokenizer) -> dict[str, Any]:
    """The `pre_tokenizer` of a tokenizer.json that does what `entry` does: the inverse of
    `read_steps`.
    """
    parts = [_split(step) for step in entry.steps]
    parts.append(
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    )
    return {"type": "Sequence", "pretokenizers": parts}


def _split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def _flatten(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if part.get("type") != "Sequence":
        return [part]
    return [leaf for child in part["pretokenizers"] for leaf in _flatten(child)]


def _read_split(part: Mapping[str, Any]) -> list[str]:
    pattern = part["pattern"]
    if "Regex" not in pattern:
        raise TokenizerError(
            f"tokenizer.json splits at the string {pattern!r}, which llama.cpp cannot; pass --pre "
            f"NAME to override"
        )
    regex = _canonical(pattern["Regex"])
    how = (part.get("behavior"), bool(part.get("invert")))
    if how != ("Isolated", False) and not (how == ("Removed", True) and regex in COVERING):
        raise TokenizerError(
            f"tokenizer.json splits with behavior {how[0]!r}, invert {how[1]}, which llama.cpp "
            "cannot; pass --pre NAME to override"
        )
    return [regex]


def _canonical(regex: str) -> str:
    return (
        regex.replace("\r", r"\r")
        .replace("\n", r"\n")
        .replace(CONTRACTIONS_SPELT, CONTRACTIONS)
        .replace(r"\p{N}{1}|", r"\p{N}|")
    )


def _read_byte_level(part: Mapping[str, Any]) -> list[str]:
    if part.get("add_prefix_space"):
        raise TokenizerError(
            "tokenizer.json adds a prefix space before byte-level BPE, which llama.cpp cannot; "
            "retrain or re-save without it"
        )
    return [GPT2] if part.get("use_regex", True) else []


def _read_digits(part: Mapping[str, Any]) -> list[str]:
    return [DIGIT if part.get("individual_digits") else NUMBER]


def _read_punctuation(part: Mapping[str, Any]) -> list[str]:
    if part.get("behavior") != "Contiguous":
        raise TokenizerError(
            f"tokenizer.json cuts punctuation {part.get('behavior')!r}, which llama.cpp cannot; "
            f"pass --pre NAME to override"
        )
    return [PUNCTUATION]


_READERS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "Split": _read_split,
    "Digits": _read_digits,
    "Punctuation": _read_punctuation,
    "ByteLevel": _read_byte_level,
}


def _unrecognised(steps: tuple[str, ...], *, ignore: bool) -> str:
    said = " then ".join(steps) or "no split"
    written = {" then ".join(entry.steps): entry.name for entry in reversed(PRE_TOKENIZERS)}
    near = [written[text] for text in difflib.get_close_matches(said, written, n=3, cutoff=0.3)]
    hint = f"nearest: {', '.join(near)}; " if near else ""
    return (
        f"tokenizer.json pre-tokenizer is not one that llama.cpp knows: {said!r} with "
        f"ignore_merges {ignore}; {hint}pass --pre NAME to override"
    )
