"""What the columns of a matrix are multiplied by together: the second moments of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ropeconv.importance.sums import Sums

GROUP = 4096  # neighbours whose products are kept, at most: 64 MiB
Groups = Sequence[NDArray[np.float32]]
"""Of neighbouring columns, group after group, (k, k) sums of x x^T."""


@dataclass(frozen=True)
class Calibration:
    """What to run for them. text: none for Python's documentation; tokens: in all."""

    text: Sequence[Path]
    tokens: int


class Moments(Protocol):
    """The inputs of a model's matrices."""

    def of(self, name: str) -> Groups | Sums | None:
        """Of the tensor `name`; squares alone for an expert's, None where nothing is known.

        Asked for in the order of layers: those of earlier ones are forgotten.
        """


def groups_of(columns: int) -> list[tuple[int, int]]:
    """(start, stop) of the groups of a row, equal but for the last, each a multiple of 256."""
    count = -(-columns // GROUP)
    size = -(-columns // count)
    size += -size % 256
    return [(start, min(columns, start + size)) for start in range(0, columns, size)]
