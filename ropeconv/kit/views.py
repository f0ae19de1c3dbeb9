"""Tensors that are other tensors seen in another way, with the contract of `ropeconv.model.Tensor`.

Nothing is read until rows are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ropeconv.model import Rows, Tensor

Order = NDArray[np.int64]


class RowRule(Protocol):
    """Which row of a tensor each row of another is."""

    @property
    def order(self) -> Order:
        """Source row of each target row."""


@dataclass(frozen=True)
class Reordered:
    """A tensor with its rows in another order; see `ropeconv.model.Tensor`."""

    base: Tensor
    rule: RowRule

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


@runtime_checkable
class Divisible(Protocol):
    """A tensor that can read an entry of its first axis by that entry's own rows."""

    def entry(self, number: int) -> Tensor:
        """One entry."""


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
        if isinstance(self.base, Divisible):
            return self.base.entry(self.number).rows(start, stop)
        own: Rows = self.base.rows(self.number, self.number + 1)[0]
        return own[start:stop]

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, row bytes) as stored."""
        whole = self.base.raw_rows(self.number, self.number + 1)
        return whole.reshape(self.shape[0], -1)[start:stop]


@dataclass(frozen=True)
class Part:
    """Rows [first, end) of a tensor; see `ropeconv.model.Tensor`."""

    base: Tensor
    first: int
    end: int

    @property
    def shape(self) -> tuple[int, ...]:
        """With fewer rows."""
        return (self.end - self.first, *self.base.shape[1:])

    @property
    def dtype(self) -> str:
        """The base's."""
        return self.base.dtype

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) numbers."""
        return self.base.rows(self.first + start, self.first + stop)

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, row bytes) as stored."""
        return self.base.raw_rows(self.first + start, self.first + stop)


@dataclass(frozen=True)
class Joined:
    """Tensors of one row shape, one below the other; see `ropeconv.model.Tensor`."""

    parts: tuple[Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """With the rows of all."""
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> str:
        """The parts' own where it is one, else the type that holds them all."""
        types = {part.dtype for part in self.parts}
        return types.pop() if len(types) == 1 else "F32"

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) numbers."""
        read = [part.rows(*bounds) for part, bounds in self._within(start, stop)]
        mixed = any(part.dtype != self.dtype for part in self.parts)
        return np.concatenate([rows.astype(np.float32) for rows in read] if mixed else read)

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, row bytes) as stored."""
        if any(part.dtype != self.dtype for part in self.parts):
            return as_bytes(self.rows(start, stop))
        return np.concatenate([part.raw_rows(*at) for part, at in self._within(start, stop)])

    def _within(self, start: int, stop: int) -> Iterator[tuple[Tensor, tuple[int, int]]]:
        """The parts that hold some of the rows, and which of theirs."""
        first = 0
        for part in self.parts:
            low, high = max(start - first, 0), min(stop - first, part.shape[0])
            if low < high:
                yield part, (low, high)
            first += part.shape[0]


@dataclass(frozen=True)
class Shaped:
    """A small tensor of floats in another shape; see `ropeconv.model.Tensor`."""

    base: Tensor
    shape: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """The base's."""
        return self.base.dtype

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) numbers."""
        whole: Rows = self.base.rows(0, self.base.shape[0]).reshape(self.shape)
        return whole[start:stop]

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Their bytes."""
        return as_bytes(self.rows(start, stop))


@dataclass(frozen=True)
class Filled:
    """One number everywhere; see `ropeconv.model.Tensor`."""

    shape: tuple[int, ...]
    value: float
    dtype: str = "F32"

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) float32 numbers."""
        return np.full((stop - start, *self.shape[1:]), self.value, np.float32)

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Their bytes."""
        return as_bytes(self.rows(start, stop))


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
        return np.atleast_1d(self.values)[start:stop]

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Their bytes."""
        return as_bytes(self.rows(start, stop))


def as_bytes(rows: NDArray[Any]) -> NDArray[np.uint8]:
    """(n, row bytes) of rows of any shape and type."""
    return np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)


def whole_of(tensors: Sequence[Tensor]) -> Tensor | None:
    """The tensor whose entries these are, all of them in order."""
    first = tensors[0]
    if not isinstance(first, Entry) or first.base.shape[0] != len(tensors):
        return None
    in_order = all(
        isinstance(tensor, Entry) and tensor.base is first.base and tensor.number == number
        for number, tensor in enumerate(tensors)
    )
    return first.base if in_order else None
