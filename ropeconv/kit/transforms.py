"""What is done to tensors between a checkpoint and a file, as values that compose and know their
inverse.

A transform takes a list of lazy tensors to another list: most take each to one, `Stack` takes all
to one, `Unstack` one to many. Nothing is read until rows are asked for. A transform of what its
inverse made gives the original tensors, so that a file rewritten in its own layout is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np

from ropeconv.kit.views import Entry, Order, Reordered, Shifted, Stacked
from ropeconv.model import Tensor


class Transform(Protocol):
    """See the module."""

    @property
    def inverse(self) -> Transform:
        """What undoes it."""

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The transformed tensors; read when they are."""


@dataclass(frozen=True)
class Keep:
    """Nothing."""

    @property
    def inverse(self) -> Keep:
        """Itself."""
        return self

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors."""
        return list(tensors)


@dataclass(frozen=True)
class RowOrder:
    """Rows, seen as an array of `shape`, come in the order of its axes `axes`.

    (heads, 2, d/2) with axes (0, 2, 1): rotary halves become neighbours. Rows of quantised blocks
    are moved as they are.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def inverse(self) -> RowOrder:
        """The order back."""
        back = tuple(int(axis) for axis in np.argsort(self.axes))
        return RowOrder(tuple(self.shape[axis] for axis in self.axes), back)

    @property
    def order(self) -> Order:
        """Source row of each target row."""
        rows = np.arange(prod(self.shape)).reshape(self.shape)
        return rows.transpose(self.axes).reshape(-1)

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each with its rows reordered."""
        undone = self.inverse
        return [
            tensor.base
            if isinstance(tensor, Reordered) and tensor.rule == undone
            else Reordered(tensor, self)
            for tensor in tensors
        ]


@dataclass(frozen=True)
class Shift:
    """A number added to every value, in float32."""

    by: float

    @property
    def inverse(self) -> Shift:
        """The number taken off."""
        return Shift(-self.by)

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each with the number added."""
        return [
            tensor.base
            if isinstance(tensor, Shifted) and tensor.by == -self.by
            else Shifted(tensor, self.by)
            for tensor in tensors
        ]


@dataclass(frozen=True)
class Stack:
    """`count` tensors of one shape become one with a further first axis."""

    count: int

    @property
    def inverse(self) -> Unstack:
        """One tensor for each entry of the first axis."""
        return Unstack(self.count)

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """One tensor."""
        assert len(tensors) == self.count
        whole = _whole(tensors)
        return [Stacked(tuple(tensors)) if whole is None else whole]


@dataclass(frozen=True)
class Unstack:
    """One tensor becomes `count`, one for each entry of its first axis."""

    count: int

    @property
    def inverse(self) -> Stack:
        """All of them in one."""
        return Stack(self.count)

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """`count` tensors."""
        (whole,) = tensors
        assert whole.shape[0] == self.count
        if isinstance(whole, Stacked):
            return list(whole.parts)
        return [Entry(whole, number) for number in range(self.count)]


@dataclass(frozen=True)
class Chain:
    """Transforms one after the other."""

    steps: tuple[Transform, ...]

    @property
    def inverse(self) -> Chain:
        """Each undone, the last one first."""
        return Chain(tuple(step.inverse for step in reversed(self.steps)))

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What the last step gives."""
        found = list(tensors)
        for step in self.steps:
            found = step.apply(found)
        return found


def chain(*steps: Transform) -> Transform:
    """The steps that do something, as one transform."""
    kept = tuple(step for step in steps if step not in (Keep(), Shift(0.0)))
    if not kept:
        return Keep()
    return kept[0] if len(kept) == 1 else Chain(kept)


def _whole(tensors: Sequence[Tensor]) -> Tensor | None:
    """The tensor whose entries these are, all of them in order."""
    first = tensors[0]
    if not isinstance(first, Entry) or first.base.shape[0] != len(tensors):
        return None
    in_order = all(
        isinstance(tensor, Entry) and tensor.base is first.base and tensor.number == number
        for number, tensor in enumerate(tensors)
    )
    return first.base if in_order else None
