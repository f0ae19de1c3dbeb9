"""Training examples: PoSE's short windows with skipped positions, or windows of the full length.

PoSE: Zhu et al., "PoSE: Efficient Context Window Extension of LLMs via Positional Skip-wise
Training", 2023. An example is a function of (seed, its number) alone, so that any number of
processes and any resumed run see the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ropeconv.errors import CheckpointError

# Windows: how far apart in the text an example's two chunks may lie, as in the authors' code.
GAP = 5
IGNORED = -100  # torch's cross_entropy leaves such labels out


@dataclass(frozen=True)
class Example:
    """Three times (length,): tokens, their positions, the tokens they are to predict."""

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """Where examples come from.

    ids: the training text; length: tokens an example; context: L', positions it may use.
    """

    ids: NDArray[np.int64]
    length: int
    context: int
    skip: bool
    seed: int

    def example(self, number: int) -> Example:
        """Example `number` of the run."""
        rng = np.random.default_rng([self.seed, number])
        return self._skipping(rng) if self.skip else self._whole(rng)

    def _whole(self, rng: np.random.Generator) -> Example:
        start = int(rng.integers(0, len(self.ids) - self.length))
        ids = self.ids[start : start + self.length + 1]
        return Example(ids[:-1], np.arange(self.length), ids[1:])

    def _skipping(self, rng: np.random.Generator) -> Example:
        """Two chunks: the first at position 0, the second moved by up to L' - length.

        The second comes from further on in the text. The last token of the first chunk is not
        asked for the first of the second.
        """
        first = int(rng.integers(1, self.length // 2 + 1))
        room = len(self.ids) - self.length - 1
        gap = int(rng.integers(0, min(GAP * self.length, room) + 1))
        start = int(rng.integers(0, room - gap + 1))
        second = start + first + gap
        chunks = (
            self.ids[start : start + first],
            self.ids[second : second + self.length - first + 1],
        )
        ids = np.concatenate(chunks)
        shift = int(rng.integers(0, self.context - self.length + 1))
        positions = np.arange(self.length)
        positions[first:] += shift
        labels = ids[1:].copy()
        labels[first - 1] = IGNORED
        return Example(ids[:-1], positions, labels)


def make_windows(
    ids: Sequence[int], *, length: int, context: int, skip: bool, seed: int
) -> Windows:
    """Windows over `ids`; CheckpointError when the text or the context is too short for them."""
    if not 4 <= length <= context:
        raise CheckpointError(
            f"--window {length}: give 4 to {context} tokens, the context to be trained for"
        )
    if len(ids) < length + 2:
        raise CheckpointError(
            f"the training text has {len(ids)} tokens, a window needs {length + 2}; "
            f"give more --text"
        )
    return Windows(np.asarray(ids, np.int64), length, context, skip, seed)
