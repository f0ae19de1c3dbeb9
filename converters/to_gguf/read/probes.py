"""Decoding with the cache, a few tokens on either side of the trained length.

llama.cpp's cache takes consecutive positions that may begin anywhere. The text's own passes are
decoded at their end too (`as_run.LAST_STEPS`), over all the distance that they reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf import run
from converters.to_gguf.read.as_run import LAST_STEPS
from ropeconv.artefact import Probe

CALLS = (16, *LAST_STEPS)  # a prompt before them
TOKENS = sum(CALLS)


def make_probes(path: Path, *, trained: int, context: int, switch: int | None) -> list[Probe]:
    """trained, context: L and L'. switch: up to how many allocated tokens LongRoPE takes the short
    factors, in llama.cpp by what is allocated, in the reference by the last position.
    """
    return [_probe(path, *found) for found in _places(trained, context, switch)]


def _places(trained: int, context: int, switch: int | None) -> Iterator[tuple[str, int, int]]:
    """(what it shows, first position, tokens to allocate)."""
    across = (trained if switch is None else switch) - TOKENS // 2
    reaches = 0 <= across <= context - TOKENS
    if switch is None:
        if context >= TOKENS:
            yield "", 0, TOKENS
        if reaches:
            yield "", across, TOKENS
        return
    if switch >= run.CONTEXT_STEP:  # the least that can be allocated
        yield " (short factors)", switch - TOKENS, TOKENS
    if reaches:
        yield " (long factors)", across, switch + 1


def _probe(path: Path, factors: str, start: int, allocated: int) -> Probe:
    places = np.arange(start, start + TOKENS)[None]
    name = f"decoding with a cache from {start} to {start + TOKENS - 1}{factors}"
    return Probe(name, places, np.ones_like(places), partial(_run, path, start, allocated))


def _run(path: Path, start: int, allocated: int, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """(1, s, vocab) logits of ids (1, s)."""
    blocks = run.logits(path, ids[0].tolist(), allocated, start=start, calls=CALLS)
    return np.concatenate(list(blocks))[None]
