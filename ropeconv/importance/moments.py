"""What the columns of a matrix are multiplied by together: the second moments of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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


Rounded = Callable[[str, NDArray[Any]], NDArray[np.float32]]
"""(name of a tensor, some rows of it) -> what rounding makes of them."""


class Moments(Protocol):
    """The inputs of a model's matrices, and what it costs to round them."""

    def of(self, name: str) -> Groups | Sums | None:
        """Of the tensor `name`; squares alone for an expert's, None where nothing is known.

        Asked for in the order of layers: those of earlier ones are forgotten.
        """

    def losses(self, questions: Sequence[tuple[str, ...]], rounded: Rounded) -> Sequence[float]:
        """For each: the KL divergence, nats a token, of the model with these tensors rounded."""


def groups_of(columns: int) -> list[tuple[int, int]]:
    """(start, stop) of the groups of a row, equal but for the last, each a multiple of 256."""
    count = -(-columns // GROUP)
    size = -(-columns // count)
    size += -size % 256
    return [(start, min(columns, start + size)) for start in range(0, columns, size)]
