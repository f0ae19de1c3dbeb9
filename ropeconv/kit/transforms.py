"""What is done to tensors between a checkpoint and a file, as values that compose and know their inverse.

A transform takes a list of lazy tensors to another list: most take each to one, `Stack` takes all
to one, `Unstack` one to many. Nothing is read until rows are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ropeconv.model import Rows, Tensor

Order = NDArray[np.int64]


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
        return [Reordered(tensor, self) for tensor in tensors]


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
        return [Shifted(tensor, self.by) for tensor in tensors]


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
        return [Stacked(tuple(tensors))]


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


@dataclass(frozen=True)
class Reordered:
    """A tensor with its rows in another order; see `ropeconv.model.Tensor`."""

    base: Tensor
    rule: RowOrder

    @cached_property
    def order(self) -> Order:
        """Source row of each row."""
        return self.rule.order

    @property
    def shape(self) -> tuple[int, ...]:
        """The base's."""
        return self.base.shape

    @property
    def dtype(self) -> str:
        """The base's."""
        return self.base.dtype

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) numbers."""
        return self._gather(start, stop, raw=False)

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, row bytes) as stored."""
        return self._gather(start, stop, raw=True)

    def _gather(self, start: int, stop: int, *, raw: bool) -> NDArray[Any]:
        read = self.base.raw_rows if raw else self.base.rows
        order = self.order[start:stop]
        low, high = int(order.min()), int(order.max()) + 1
        if high - low <= 4 * (stop - start):  # a reordering within heads stays close by
            return read(low, high)[order - low]
        return np.concatenate([read(int(row), int(row) + 1) for row in order])


@dataclass(frozen=True)
class Shifted:
    """A tensor with a number added to every value; see `ropeconv.model.Tensor`."""

    base: Tensor
    by: float
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """The base's."""
        return self.base.shape

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) float32 numbers."""
        return self.base.rows(start, stop).astype(np.float32) + np.float32(self.by)

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Their bytes."""
        return as_bytes(self.rows(start, stop))


@dataclass(frozen=True)
class Stacked:
    """Tensors of one shape and type along a further first axis; see `ropeconv.model.Tensor`."""

    parts: tuple[Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(parts, ...)."""
        return (len(self.parts), *self.parts[0].shape)

    @property
    def dtype(self) -> str:
        """The parts' own where it is one, else the type that holds them all."""
        types = {part.dtype for part in self.parts}
        return types.pop() if len(types) == 1 else "F32"

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) numbers of whole parts."""
        return np.stack([part.rows(0, part.shape[0]) for part in self.parts[start:stop]])

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, bytes of a part) as stored."""
        parts = self.parts[start:stop]
        if self.dtype != parts[0].dtype:
            return as_bytes(self.rows(start, stop).astype(np.float32))
        return np.stack([part.raw_rows(0, part.shape[0]).reshape(-1) for part in parts])


@dataclass(frozen=True)
class Entry:
    """One entry of a tensor's first axis; see `ropeconv.model.Tensor`."""

    base: Tensor
    number: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Without the first axis."""
        return self.base.shape[1:]

    @property
    def dtype(self) -> str:
        """The base's."""
        return self.base.dtype

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) numbers."""
        return self.base.rows(self.number, self.number + 1)[0][start:stop]

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, row bytes) as stored."""
        whole = self.base.raw_rows(self.number, self.number + 1)
        return whole.reshape(self.shape[0], -1)[start:stop]


@dataclass(frozen=True)
class TableTensor:
    """An array made here, with the contract of `ropeconv.model.Tensor`."""

    values: NDArray[np.float32]
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.values.shape

    def rows(self, start: int, stop: int) -> Rows:
        """The numbers."""
        return self.values[start:stop]

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Their bytes."""
        return as_bytes(self.values[start:stop])


def as_bytes(rows: NDArray[Any]) -> NDArray[np.uint8]:
    """(n, row bytes) of rows of any shape and type."""
    return np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
