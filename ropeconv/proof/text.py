"""What the proof runs on: real text, how much of it, and in which passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ropeconv.errors import CheckpointError, ConfigError

CAP = 16384  # tokens without --tokens: minutes on a CPU for a small model
# llama.cpp allocates context in steps of this, and LongRoPE there switches on what is allocated
CONTEXT_STEP = 256
CHARACTERS = 8  # of a text that are read for a token at first; prose has 4 to 5
MARGIN = 64  # tokens before a cut that it may change: none of them is used


@dataclass(frozen=True)
class Pass:
    """One run of both sides over the first `tokens` tokens. context: what the artefact's runtime
    allocates.
    """

    name: str
    tokens: int
    context: int


def default_text() -> str:
    """English reference prose of Python's own documentation (`pydoc_data.topics`): 465,000
    characters. ConfigError where a system left it out of its Python.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ConfigError(
            "this Python is installed without its documentation (pydoc_data); give --text FILE"
        ) from error
    return "\n\n".join(topics[name] for name in sorted(topics))


def read_text(path: Path) -> str:
    """A user's text file; CheckpointError when it cannot be read or holds none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not a readable UTF-8 text ({error})") from error
    if not text.strip():
        raise CheckpointError(f"{path}: holds no text; give a longer one")
    return text


def wanted_tokens(tokens: int | None, *, trained: int, context: int) -> int:
    """How many tokens to run: past L = `trained` where L' = `context` allows, within CAP; or the
    user's number.
    """
    if tokens is None:
        return min(context, trained + max(1024, trained // 8), CAP)
    if not 2 <= tokens <= context:
        raise ConfigError(
            f"--tokens {tokens}: give 2 to {context}, the context that the artefact promises"
        )
    return tokens


def leading_ids(tokenize: Callable[[str], list[int]], text: str, wanted: int) -> list[int]:
    """The first `wanted` ids of the text, read no further than they reach."""
    length = CHARACTERS * (wanted + MARGIN)
    while length < len(text):
        ids = tokenize(text[:length])
        if len(ids) >= wanted + MARGIN:
            return ids[:wanted]
        length *= 4
    return tokenize(text)[:wanted]


def plan_passes(ids: Sequence[int], *, switch: int | None, trained: int) -> list[Pass]:
    """One pass over all of `ids`; two where LongRoPE switches tables at `switch` tokens, one on
    each side of it.

    None for fewer than 2 tokens: without a next token there is nothing to predict.
    """
    total = len(ids)
    if total < 2:
        return []
    if switch is None:
        return [Pass("whole text", total, total)]
    short = min(total, switch // CONTEXT_STEP * CONTEXT_STEP)
    passes = [Pass(f"short factors, up to {trained} tokens", short, short)] if short >= 2 else []
    if total > switch:
        passes.append(Pass(f"long factors, past {switch} tokens", total, total))
    return passes
