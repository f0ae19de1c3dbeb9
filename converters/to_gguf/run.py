"""A GGUF file in its own runtime: llama.cpp, in a process of its own (`llama/`), because it aborts
on some files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.llama.client import worker
from converters.to_gguf.llama.frames import BATCH, CONTEXT_STEP, Cache
from converters.to_gguf.rope.run_rope import frequencies
from converters.to_gguf.rope.settings import rope_problems

__all__ = [
    "BATCH",
    "CONTEXT_STEP",
    "PROVEN",
    "Cache",
    "branches",
    "ends",
    "frequencies",
    "logits",
    "rope_problems",
    "special_ids",
    "tokenize",
    "vocabulary",
]

PROVEN = Cache()


def logits(
    path: Path,
    ids: Sequence[int],
    context: int,
    *,
    start: int = 0,
    calls: Sequence[int] | None = None,
    cache: Cache = PROVEN,
) -> Iterator[NDArray[np.float32]]:
    """(n, vocab) float32 blocks in order, one row for each of `ids`, n <= 512.

    context: tokens to allocate, rounded up to a multiple of 256; LongRoPE in llama.cpp takes the
    long factors for every token when this passes the original context. start: position of the first
    token. calls: how many tokens each call takes, together all of them; None: 512 as long as there
    are. Raises CheckpointError with llama.cpp's reason when the file does not load or run,
    CannotExpress without llama-cpp-python.
    """
    if not 0 < len(ids) <= context:
        raise ValueError(f"{len(ids)} tokens do not fit a context of {context}")
    sizes = _even_calls(len(ids)) if calls is None else list(calls)
    if sum(sizes) != len(ids) or max(sizes) > BATCH:
        raise ValueError(f"calls of {sizes} tokens do not make {len(ids)}")
    yield from worker().blocks(
        path,
        ids=[int(i) for i in ids],
        context=context,
        start=start,
        calls=sizes,
        cache=asdict(cache),
    )


def branches(
    path: Path,
    ids: Sequence[int],
    parts: Sequence[Sequence[int]],
    context: int,
    *,
    cache: Cache = PROVEN,
) -> Iterator[NDArray[np.float32]]:
    """(n, vocab) float32 logits of the n tokens of each of `parts`, each of which follows `ids`.

    The text is run once; where llama.cpp cannot take tokens out of its memory (states), once a
    part. context, errors: as of `logits`. n <= 512.
    """
    longest = max(map(len, parts))
    if not 0 < len(ids) <= context - longest or not all(0 < len(part) <= BATCH for part in parts):
        raise ValueError(f"{len(ids)} tokens and {longest} more do not fit {context}, or {BATCH}")
    yield from worker().blocks(
        path,
        ids=[int(i) for i in ids],
        context=context,
        start=0,
        calls=_even_calls(len(ids)),
        cache=asdict(cache),
        branches=[[int(i) for i in part] for part in parts],
    )


def _even_calls(count: int) -> list[int]:
    return [min(BATCH, count - done) for done in range(0, count, BATCH)]


def tokenize(path: Path, text: str) -> list[int]:
    """Token ids of `text`: special tokens parsed, BOS and EOS added as the file says."""
    ids: list[int] = worker().ask("tokenize", path, text=text)
    return ids


def vocabulary(path: Path) -> list[str]:
    """The text of every token, as the file stores it, in order of id."""
    texts: list[str] = worker().ask("vocabulary", path)
    return texts


def ends(path: Path) -> set[int]:
    """The tokens at which llama.cpp stops generating: the file's, and those that it takes for an
    end by their text.
    """
    return set(worker().ask("ends", path))


def special_ids(path: Path) -> dict[str, int]:
    """bos, eos and pad as llama.cpp takes them, with its own defaults where the file is silent; -1
    is left out.
    """
    found: dict[str, int] = worker().ask("special_ids", path)
    return found
