"""Latents that are louder by a power of two, so that an epsilon is to them what another one is to
latents as they are.

transformers norms latents with an epsilon of its own, llama.cpp with that of all other norms. k x
under the epsilon k^2 e is x under e, and a power of two changes no digit of a weight; what is left
is the difference of epsilons to within a factor of two, 24 times less where they are 1e-5 and 1e-6.
A token near the border between two experts goes to another one for as little as 1e-5 would do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ropeconv.kit.float_types import FLOATS
from ropeconv.kit.transforms import Keep, Transform
from ropeconv.kit.views import as_bytes
from ropeconv.model import Rows, Tensor


@dataclass(frozen=True)
class Scaled:
    """A matrix whose first `count` rows are multiplied; see `ropeconv.model.Tensor`."""

    base: Tensor
    count: int
    by: float

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """As it is stored."""
        return (self.base,)

    def apart(self, whole: Tensor) -> Sequence[Tensor]:
        """Another matrix as `parts` are."""
        return [Scaled(whole, self.count, 1.0 / self.by)]

    @property
    def shape(self) -> tuple[int, ...]:
        """The base's."""
        return self.base.shape

    @property
    def dtype(self) -> str:
        """The base's; F32 for blocks."""
        return self.base.dtype if self.base.dtype in FLOATS else "F32"

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, columns) numbers."""
        numbers = np.array(self.base.rows(start, stop))
        numbers[: max(0, self.count - start)] *= numbers.dtype.type(self.by)
        return numbers

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Their bytes."""
        return as_bytes(self.rows(start, stop))


@dataclass(frozen=True)
class Louder:
    """The first `count` rows are multiplied by a power of two."""

    count: int
    by: float

    @property
    def inverse(self) -> Louder:
        """Divided by it."""
        return replace(self, by=1.0 / self.by)

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each with those rows multiplied."""
        undone = (self.count, 1.0 / self.by)
        return [
            tensor.base
            if isinstance(tensor, Scaled) and (tensor.count, tensor.by) == undone
            else Scaled(tensor, self.count, self.by)
            for tensor in tensors
        ]


def loudness(epsilon: float, wanted: float) -> float:
    """The power of two whose square is closest to epsilon / wanted; 1 for an epsilon of 0."""
    return 1.0 if not epsilon else 2.0 ** round(math.log2(epsilon / wanted) / 2)


def louder(count: int, by: float) -> Transform:
    """The transform, nothing where it would do nothing."""
    return Keep() if by == 1.0 else Louder(count, by)
