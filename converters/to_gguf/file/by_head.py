"""Rows of a delta net that a checkpoint has key head by key head, apart as llama.cpp has them: q, k
and v of every head in one matrix, z in another. Views with the contract of `ropeconv.model.Tensor`,
and the transforms between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ropeconv.arch.blocks.states.delta_net import ByHead, GatedDeltaNet
from ropeconv.arch.stack import Layer
from ropeconv.kit.transforms import ByPart, Cut, chain
from ropeconv.kit.views import Joined, Reordered
from ropeconv.model import Rows, Tensor

Shapes = tuple[tuple[int, ...], ...]


def apart_by_head(
    layer: Layer | None, sources: tuple[str, ...]
) -> tuple[Shapes, tuple[str, ...], ApartByHead]:
    """(shapes, sources, transform) of what a layer's one matrix becomes."""
    block = None if layer is None else layer.mixer
    assert isinstance(block, GatedDeltaNet)
    assert isinstance(block.projections, ByHead)
    apart = ApartByHead(block.key_heads, block.of_each_head)
    columns = block.projections.qkvz.weight.shape[1]
    return tuple((rows, columns) for rows in apart.sizes), sources, apart


@dataclass(frozen=True)
class ApartByHead:
    """One matrix becomes two: q, k and v of all of `groups` key heads, and z. rows: of q, k, v and
    z in one head.
    """

    groups: int
    rows: tuple[int, int, int, int]

    @property
    def inverse(self) -> WholeByHead:
        """The one matrix."""
        return WholeByHead(self)

    @property
    def by_part(self) -> ByPart:
        """Part by part, still in one."""
        return ByPart(self.groups, self.rows)

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows of each matrix."""
        q, k, v, z = self.rows
        return self.groups * (q + k + v), self.groups * z

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The two."""
        (whole,) = tensors
        if isinstance(whole, HeadByHead) and whole.rule == self:
            return list(whole.parts)
        return chain(self.by_part, Cut(self.sizes)).apply(tensors)


@dataclass(frozen=True)
class WholeByHead:
    """Two matrices become the one that `undone` takes apart."""

    undone: ApartByHead

    @property
    def inverse(self) -> ApartByHead:
        """The two."""
        return self.undone

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The one."""
        return [HeadByHead(tuple(tensors), self.undone)]


@dataclass(frozen=True)
class HeadByHead:
    """The matrix of both parts, key head by key head."""

    parts: tuple[Tensor, ...]
    rule: ApartByHead

    @cached_property
    def _whole(self) -> Tensor:
        return Reordered(Joined(self.parts), self.rule.by_part.inverse)

    @property
    def shape(self) -> tuple[int, ...]:
        """With the rows of both."""
        return self._whole.shape

    @property
    def dtype(self) -> str:
        """The parts' own where it is one, else F32."""
        return self._whole.dtype

    def apart(self, whole: Tensor) -> list[Tensor]:
        """Another such matrix, as the parts are."""
        return self.rule.apply([whole])

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, columns) numbers."""
        return self._whole.rows(start, stop)

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, row bytes) as stored."""
        return self._whole.raw_rows(start, stop)
