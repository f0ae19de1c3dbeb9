"""How fast a file runs in its own runtime, with the settings of the proof."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from ropeconv.artefact import Artefact, RunSettings

DEPTH = 512  # tokens in the cache, where the text has twice as many
STEPS = 17  # the first of which loads the file and reads the text

Block = NDArray[np.float32]


def generation_speed(artefact: Artefact, ids: Sequence[int]) -> float:
    """Tokens a second, one at a time after DEPTH others: the fastest call, which other work on the
    machine held up least.

    NaN where the runtime keeps no text.
    """
    if artefact.branches is None:
        return float("nan")
    depth = max(1, min(DEPTH, len(ids) // 2))
    steps = [[ids[n % len(ids)]] for n in range(depth, depth + STEPS)]
    run = artefact.branches(RunSettings())(ids[:depth], steps, depth + 1)
    _, *seconds = _seconds(run)
    return 1 / min(seconds)


def _seconds(blocks: Iterable[Block]) -> Iterator[float]:
    before = perf_counter()
    for _ in blocks:
        now = perf_counter()
        yield now - before
        before = now


@dataclass
class Reading:
    """The speed of a pass over a text, block by block; the first, which loads the file, and those
    of less than half as many tokens do not count.
    """

    blocks: list[tuple[int, float]] = field(default_factory=list)

    def timed(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The same blocks."""
        source = iter(blocks)
        while True:
            before = perf_counter()
            block = next(source, None)
            if block is None:
                return
            self.blocks.append((len(block), perf_counter() - before))
            yield block
            del block  # before the next one is made

    @property
    def speed(self) -> float:
        """Tokens a second; NaN for a text of one block."""
        largest = max((count for count, _ in self.blocks), default=0)
        counted = [entry for entry in self.blocks[1:] if 2 * entry[0] >= largest]
        if not counted:
            return float("nan")
        return sum(count for count, _ in counted) / sum(seconds for _, seconds in counted)
