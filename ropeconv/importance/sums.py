"""What each column of a matrix is multiplied by, on the mean over a text: the importance matrix.

A weight is rounded well where that costs little of a product's output, and the cost of a column is
the mean square of its inputs. Sums and counts are kept, so that those of several texts add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.errors import CheckpointError

Means = NDArray[np.float32]
"""(n, c) mean squares of the inputs of n matrices of c columns."""


@dataclass(frozen=True)
class Sums:
    """squares (n, c) float64: sums of the squared inputs of n matrices of c columns, one or one an
    expert. counts (n,) int64: how many inputs.
    """

    squares: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def means(self) -> Means:
        """(n, c) mean squares; 1 for an expert that no token was sent to, as llama.cpp's quantiser
        has it.
        """
        counts = self.counts.astype(np.float32)[:, None]
        seen = self.squares.astype(np.float32) / np.maximum(counts, np.float32(1))
        return np.where(counts > 0, seen, np.float32(1))

    def plus(self, other: Sums) -> Sums:
        """Both together. ValueError for other shapes."""
        if self.squares.shape != other.squares.shape:
            raise ValueError(f"{self.squares.shape} and {other.squares.shape}")
        return Sums(self.squares + other.squares, self.counts + other.counts)


@dataclass(frozen=True)
class Importance:
    """Sums by a matrix's name.

    texts: what they are of, as a user knows it; chunks: how many windows of chunk_size tokens (0:
    not said). about: what ropeconv noted when it made them, empty in others' files.
    """

    sums: Mapping[str, Sums]
    texts: tuple[str, ...] = ()
    chunks: int = 0
    chunk_size: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)


def add_sums(one: Mapping[str, Sums], other: Mapping[str, Sums]) -> dict[str, Sums]:
    """Both together, by name. CheckpointError for sums of another model's matrices."""
    found = dict(one)
    for name, sums in other.items():
        try:
            found[name] = found[name].plus(sums) if name in found else sums
        except ValueError as error:
            raise CheckpointError(
                f"the importance of {name} has two shapes, {error}; they are of two models"
            ) from error
    return found


def merge(parts: Sequence[Importance]) -> Importance:
    """Several as one. parts: at least one."""
    first, *others = parts
    sums = dict(first.sums)
    for other in others:
        sums = add_sums(sums, other.sums)
    return Importance(
        sums,
        texts=tuple(dict.fromkeys(text for part in parts for text in part.texts)),
        chunks=sum(part.chunks for part in parts),
        chunk_size=max(part.chunk_size for part in parts),
        about=first.about if not others else {},
    )
