"""Numbers that a model multiplies by and llama.cpp's graph does not know, in the matrices that they
can stand in. The products are float32's, as those of the model are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.archs._arch import Arch
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.mlp import GatedMlp
from ropeconv.arch.blocks.weight import Role, Weight
from ropeconv.arch.stack import Layer, Stack
from ropeconv.kit.transforms import Keep, Transform
from ropeconv.kit.views import as_bytes
from ropeconv.model import Rows, Tensor

Factors = tuple[tuple[int, float], ...]
"""(rows, the number by which they are multiplied), one below the other."""


@dataclass(frozen=True)
class Folded:
    """A matrix whose rows are multiplied, or divided if not into; see `ropeconv.model.Tensor`."""

    base: Tensor
    factors: Factors
    into: bool
    dtype: str = "F32"

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """As it is stored."""
        return (self.base,)

    def apart(self, whole: Tensor) -> Sequence[Tensor]:
        """Another matrix as `parts` are."""
        return [Folded(whole, self.factors, not self.into)]

    @property
    def shape(self) -> tuple[int, ...]:
        """The base's."""
        return self.base.shape

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, columns) float32 numbers."""
        counts, numbers = zip(*self.factors, strict=True)
        by = np.repeat(np.array(numbers, np.float32), counts)[start:stop, None]
        base: NDArray[Any] = self.base.rows(start, stop).astype(np.float32)
        made: Rows = base * by if self.into else base / by
        return made

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Their bytes."""
        return as_bytes(self.rows(start, stop))


@dataclass(frozen=True)
class Fold:
    """The rows are multiplied, or divided where not `into`."""

    factors: Factors
    into: bool = True

    @property
    def inverse(self) -> Fold:
        """The other way."""
        return replace(self, into=not self.into)

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each with its rows so."""
        undone = (self.factors, not self.into)
        return [
            tensor.base
            if isinstance(tensor, Folded) and (tensor.factors, tensor.into) == undone
            else Folded(tensor, self.factors, self.into)
            for tensor in tensors
        ]


def fold(weight: Weight, layer: Layer | None, stack: Stack, arch: Arch) -> Transform:
    """What is folded into one tensor of a file, where its architecture has numbers folded."""
    if not arch.folds or weight.part != "weight" or len(weight.shape) != 2:
        return Keep()
    factors = _factors(weight, layer, stack)
    return Keep() if all(by == 1.0 for _, by in factors) else Fold(factors)


def _factors(weight: Weight, layer: Layer | None, stack: Stack) -> Factors:
    if layer is None:
        ends = {Role.TOKEN_EMBEDDING: stack.embedding.scale, Role.OUTPUT: stack.head.scale}
        return ((weight.shape[0], ends.get(weight.role, 1.0)),)
    mixer, mlp, found = layer.mixer, layer.mlp, {}
    if isinstance(mlp, GatedMlp):
        found = {one.weight.role: one.factor for one in (mlp.gate, mlp.up, mlp.down)}
    if isinstance(mixer, Attention):
        found |= {Role.K: mixer.scale * mixer.head_dim**0.5, Role.O: mixer.output.factor}
        if mixer.beside is not None:
            found[Role.STATE_OUT] = mixer.beside.output.factor
            if weight.role is Role.STATE_IN:
                return tuple(zip(mixer.beside.parts, mixer.beside.scales, strict=True))
    return ((weight.shape[0], found.get(weight.role, 1.0)),)
