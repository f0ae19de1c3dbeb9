"""What is done to tensors of layers that keep a state: columns in another order, rates as what they
are the logarithms of. Views and transforms as in ropeconv/kit/views.py and transforms.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.weight import Role, Weight
from ropeconv.arch.stack import Layer
from ropeconv.kit.float_types import FLOATS
from ropeconv.kit.transforms import reordered
from ropeconv.kit.views import Order, RowRule, as_bytes
from ropeconv.model import Rows, Tensor


def in_file(weight: Weight, layer: Layer | None) -> tuple[int, ...]:
    """A tensor's shape: taps of a convolution (channels, 1, taps) without the axis of length 1,
    Mamba2's numbers of heads with one, its norm group by group.
    """
    shape = weight.shape
    beside = layer.mixer.beside if layer and isinstance(layer.mixer, Attention) else None
    if weight.role is Role.CONV:
        return (shape[0], *shape[2:])
    if beside is not None and weight.role in (Role.DECAY, Role.STATE_SKIP):
        return (beside.heads, 1)
    if beside is not None and weight.role is Role.STATE_NORM:
        return (beside.groups, beside.inner // beside.groups)
    return shape


class VectorRule(Protocol):
    """A function of numbers."""

    def compute(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Its values."""


@dataclass(frozen=True)
class ReorderedColumns:
    """A matrix with its columns in another order; see `ropeconv.model.Tensor`. into: another than
    blocks in the base were made for, and not back to theirs.
    """

    base: Tensor
    rule: RowRule
    into: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The base's."""
        return self.base.shape

    @property
    def dtype(self) -> str:
        """The base's; that of its numbers where blocks, which go along rows, get another order."""
        moved = self.base.dtype not in FLOATS and self.into
        return "F32" if moved else self.base.dtype

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, columns) numbers."""
        return np.ascontiguousarray(self.base.rows(start, stop)[:, self.rule.order])

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Their bytes; of blocks that stay what they are, the base's own."""
        stays = self.dtype not in FLOATS
        return self.base.raw_rows(start, stop) if stays else as_bytes(self.rows(start, stop))


@dataclass(frozen=True)
class Computed:
    """A vector's numbers by a function; see `ropeconv.model.Tensor`. rule: whose function it is."""

    base: Tensor
    rule: VectorRule
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """The base's."""
        return self.base.shape

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) float32 numbers."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            made = self.rule.compute(self.base.rows(start, stop).astype(np.float64))
        return made.astype(np.float32)

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Their bytes."""
        return as_bytes(self.rows(start, stop))


@dataclass(frozen=True)
class Tiles:
    """Behind the first `start` rows, groups of `count` blocks of `size` rows each: the first block
    of every group comes first, then the second of every group, ...; or back where not to_tiles.
    """

    start: int
    groups: int
    count: int
    size: int
    to_tiles: bool = True

    @property
    def inverse(self) -> Tiles:
        """The order back."""
        return replace(self, to_tiles=not self.to_tiles)

    @property
    def order(self) -> Order:
        """Source row of each target row."""
        blocks = np.arange(self.groups * self.count * self.size) + self.start
        outer = (self.groups, self.count) if self.to_tiles else (self.count, self.groups)
        tiled = blocks.reshape(*outer, self.size).swapaxes(0, 1).reshape(-1)
        return np.concatenate([np.arange(self.start), tiled])

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each with its rows reordered."""
        return reordered(tensors, self)


@dataclass(frozen=True)
class Columns:
    """The columns of matrices in the order that a rule has for rows."""

    rule: Tiles

    @property
    def inverse(self) -> Columns:
        """The order back."""
        return Columns(self.rule.inverse)

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each with its columns reordered."""
        undone = self.rule.inverse
        return [
            tensor.base
            if isinstance(tensor, ReorderedColumns) and tensor.rule == undone
            else ReorderedColumns(tensor, self.rule, into=self.rule.to_tiles)
            for tensor in tensors
        ]


@dataclass(frozen=True)
class MinusExp:
    """-exp of every number, or log of what it is minus where not forward."""

    forward: bool = True

    @property
    def inverse(self) -> MinusExp:
        """The other way."""
        return MinusExp(not self.forward)

    def compute(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The function's values."""
        return -np.exp(values) if self.forward else np.log(-values)

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each by the function."""
        undone = self.inverse
        return [
            tensor.base
            if isinstance(tensor, Computed) and tensor.rule == undone
            else Computed(tensor, self)
            for tensor in tensors
        ]
