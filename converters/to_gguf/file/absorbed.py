"""Keys and values of latent attention, apart as llama.cpp has them in its absorbed form, and
together as checkpoints do: views with the contract of `ropeconv.model.Tensor`, and the transforms
between them.

Shape letters: h heads, n rows of a head's keys, v of its values, l latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ropeconv.arch.blocks.mla import LatentAttention
from ropeconv.arch.stack import Layer
from ropeconv.kit.float_types import FLOATS
from ropeconv.kit.views import as_bytes
from ropeconv.model import Rows, Tensor

Shapes = tuple[tuple[int, ...], ...]


def latent_apart(
    layer: Layer | None, sources: tuple[str, ...]
) -> tuple[Shapes, tuple[str, ...], Absorb]:
    """(shapes, sources, transform) of a layer's keys and values, apart."""
    block = None if layer is None else layer.mixer
    assert isinstance(block, LatentAttention)
    h, n, v, latent = block.num_heads, block.still_dim, block.value_dim, block.latent_dim
    return ((h, latent, n), (h, v, latent)), sources, Absorb(n, v)


@dataclass(frozen=True)
class HeadRows:
    """(h, rows, l) some rows of every head of a matrix whose heads have `size` rows; (h, l, rows)
    where turned.
    """

    base: Tensor
    size: int
    first: int
    count: int
    turned: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """See the class."""
        rows, latent = self.base.shape
        own = (self.count, latent)
        return (rows // self.size, *(own[::-1] if self.turned else own))

    @property
    def dtype(self) -> str:
        """The base's; F32 for blocks."""
        return _floats(self.base.dtype)

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) numbers of whole heads."""
        heads = self.base.rows(start * self.size, stop * self.size)
        heads = heads.reshape(stop - start, self.size, -1)[:, self.first : self.first + self.count]
        return np.ascontiguousarray(heads.swapaxes(1, 2) if self.turned else heads)

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Their bytes."""
        return as_bytes(self.rows(start, stop))


@dataclass(frozen=True)
class WholeHeads:
    """(h*(n+v), l) of keys (h, l, n) and values (h, v, l): each head's keys, then its values."""

    keys: Tensor
    values: Tensor

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """As they are stored."""
        return self.keys, self.values

    @property
    def sizes(self) -> tuple[int, int]:
        """n and v."""
        return self.keys.shape[2], self.values.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """See the class."""
        return (self.keys.shape[0] * sum(self.sizes), self.keys.shape[1])

    @property
    def dtype(self) -> str:
        """The parts' own where it is one of floats, else F32."""
        types = {self.keys.dtype, self.values.dtype}
        return _floats(types.pop()) if len(types) == 1 else "F32"

    def apart(self, whole: Tensor) -> Sequence[Tensor]:
        """Another matrix of the same heads as `parts` are."""
        return absorbed(whole, *self.sizes)

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, l) numbers."""
        size = sum(self.sizes)
        first, last = start // size, -(-stop // size)
        keys = self.keys.rows(first, last).swapaxes(1, 2)
        values = self.values.rows(first, last)
        heads = np.concatenate([keys, values], axis=1, dtype=self._common(keys, values))
        rows: Rows = heads.reshape(-1, heads.shape[-1])[start - first * size : stop - first * size]
        return rows

    def _common(self, keys: Rows, values: Rows) -> np.dtype[np.generic]:
        return keys.dtype if keys.dtype == values.dtype else np.dtype(np.float32)

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Their bytes."""
        return as_bytes(self.rows(start, stop))


@dataclass(frozen=True)
class Absorb:
    """(h*(n+v), l), each head's n rows, then its v, becomes (h, l, n) and (h, v, l): latent
    attention's keys and values apart. keys, values: n and v.
    """

    keys: int
    values: int

    @property
    def inverse(self) -> Unabsorb:
        """Both in one."""
        return Unabsorb(self.keys, self.values)

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Two tensors."""
        (whole,) = tensors
        return absorbed(whole, self.keys, self.values)


@dataclass(frozen=True)
class Unabsorb:
    """See `Absorb`."""

    keys: int
    values: int

    @property
    def inverse(self) -> Absorb:
        """Both apart."""
        return Absorb(self.keys, self.values)

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """One tensor."""
        keys, values = tensors
        return [together(keys, values)]


def absorbed(whole: Tensor, keys: int, values: int) -> list[Tensor]:
    """[(h, l, n), (h, v, l)] of (h*(n+v), l): n = keys, v = values."""
    if isinstance(whole, WholeHeads) and whole.sizes == (keys, values):
        return [*whole.parts]
    size = keys + values
    return [
        HeadRows(whole, size, 0, keys, turned=True),
        HeadRows(whole, size, keys, values, turned=False),
    ]


def together(keys: Tensor, values: Tensor) -> Tensor:
    """(h*(n+v), l) of (h, l, n) and (h, v, l)."""
    match keys, values:
        case HeadRows(), HeadRows() if _both(keys, values):
            return keys.base
    return WholeHeads(keys, values)


def _both(keys: HeadRows, values: HeadRows) -> bool:
    """Whether they are the keys and values of one matrix."""
    return [keys, values] == absorbed(keys.base, keys.count, values.count)


def _floats(dtype: str) -> str:
    return dtype if dtype in FLOATS else "F32"
