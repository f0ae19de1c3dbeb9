"""What is done to tensors between a checkpoint and a file, as values that compose and know their
inverse.

A transform takes a list of lazy tensors to another list: most take each to one, `Stack` and `Join`
take all to one, `Unstack` and `Cut` one to many. Nothing is read until rows are asked for. A
transform of what its inverse made gives the original tensors, so that a file rewritten in its own
layout is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ropeconv.kit.views import (
    Entry,
    Filled,
    Joined,
    Order,
    Part,
    Reordered,
    Shaped,
    Shifted,
    Stacked,
    whole_of,
)
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
class Pairing:
    """In the first `turned` of `heads` heads of `head_dim` rows, the first r = `rotary_dim` rows:
    halves (i, i + r/2) become neighbours (2i, 2i + 1), or back where not to_neighbours.

    Rows of quantised blocks are moved as they are.
    """

    heads: int
    turned: int
    head_dim: int
    rotary_dim: int
    to_neighbours: bool

    @property
    def inverse(self) -> Pairing:
        """The order back."""
        return replace(self, to_neighbours=not self.to_neighbours)

    @property
    def order(self) -> Order:
        """Source row of each target row."""
        rows = np.arange(self.heads * self.head_dim).reshape(self.heads, self.head_dim)
        half = self.rotary_dim // 2
        shape = (2, half) if self.to_neighbours else (half, 2)
        pairs = rows[: self.turned, : self.rotary_dim].reshape(self.turned, *shape)
        turned = pairs.swapaxes(1, 2).reshape(self.turned, self.rotary_dim)
        rows[: self.turned, : self.rotary_dim] = turned
        return rows.reshape(-1)

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each with its rows reordered."""
        return reordered(tensors, self)


@dataclass(frozen=True)
class ByPart:
    """Rows that come group by group, each group's `parts` one after the other, come part by part:
    the first part of every group, then the second, ... ; or the other way round where not to_parts.

    parts: rows of each in one group.
    """

    groups: int
    parts: tuple[int, ...]
    to_parts: bool = True

    @property
    def inverse(self) -> ByPart:
        """The order back."""
        return replace(self, to_parts=not self.to_parts)

    @property
    def order(self) -> Order:
        """Source row of each target row."""
        rows = np.arange(self.groups * sum(self.parts)).reshape(self.groups, -1)
        parts = np.split(rows, np.cumsum(self.parts)[:-1], axis=1)
        order = np.concatenate([part.reshape(-1) for part in parts])
        return order if self.to_parts else np.argsort(order)

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each with its rows reordered."""
        return reordered(tensors, self)


def reordered(tensors: Sequence[Tensor], rule: Any) -> list[Tensor]:
    """Each with its rows in another order: a RowRule that has an inverse."""
    undone = rule.inverse
    return [
        tensor.base
        if isinstance(tensor, Reordered) and tensor.rule == undone
        else Reordered(tensor, rule)
        for tensor in tensors
    ]


@dataclass(frozen=True)
class Reshape:
    """The same numbers in another shape: small tensors, which are read whole."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def inverse(self) -> Reshape:
        """The shape back."""
        return Reshape(self.after, self.before)

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each in the other shape."""
        return [
            tensor.base
            if isinstance(tensor, Shaped) and tensor.base.shape == self.after
            else Shaped(tensor, self.after)
            for tensor in tensors
        ]


@dataclass(frozen=True)
class Cut:
    """One tensor becomes several, of `sizes` rows each."""

    sizes: tuple[int, ...]

    @property
    def inverse(self) -> Join:
        """All of them in one."""
        return Join(self.sizes)

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """One a size."""
        (whole,) = tensors
        if isinstance(whole, Joined):
            return list(whole.parts)
        ends = np.cumsum(self.sizes).tolist()
        starts = [0, *ends[:-1]]
        return [Part(whole, *bounds) for bounds in zip(starts, ends, strict=True)]


@dataclass(frozen=True)
class Join:
    """Tensors of `sizes` rows become one, one below the other."""

    sizes: tuple[int, ...]

    @property
    def inverse(self) -> Cut:
        """The tensors apart."""
        return Cut(self.sizes)

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """One tensor."""
        assert tuple(tensor.shape[0] for tensor in tensors) == self.sizes
        first = tensors[0]
        if isinstance(first, Part) and tensors == Cut(self.sizes).apply([first.base]):
            return [first.base]
        return [Joined(tuple(tensors))]


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
        whole = whole_of(tensors)
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
class Constant:
    """Nothing becomes a tensor with one number everywhere; undone, it vanishes."""

    shape: tuple[int, ...]
    value: float
    made: bool = True

    @property
    def inverse(self) -> Constant:
        """The tensor gone."""
        return replace(self, made=not self.made)

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensor, or none."""
        assert len(tensors) == (not self.made)
        return [Filled(self.shape, self.value)] if self.made else []


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
