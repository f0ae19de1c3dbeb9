"""What both profiles share: what a graph's blocks ask of a profile, and what a profile is given.

Both take positions and mask as inputs, token by token, so rows padded on the left, on the right or
in the middle are right. Shape letters: b batch, s new tokens, p past tokens, t = p + s, h heads,
k key/value heads, d head_dim, e hidden. Every matrix is multiplied with its rows as stored: in
ai.onnx only Gemm does, so there the residual stream is (b*s, e); onnxruntime's FusedMatMul takes
(b, s, e), and no node has to say another shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from converters.to_onnx.carry import Rotation
from converters.to_onnx.graph import Graph, Value
from converters.to_onnx.weights import Store
from ropeconv.arch.blocks import norm as norms
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.stack import Stack


@dataclass(frozen=True)
class Norm:
    """A norm and the values of its tensors, in the block's own order."""

    block: norms.Norm
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Inputs:
    """Values that every layer reads. rotations: layer kind -> numbers."""

    store: Store
    ids: Value
    mask: Value
    positions: Value
    rotations: Mapping[str, Rotation | None]
    tables: bool

    @property
    def graph(self) -> Graph:
        """The graph under construction."""
        return self.store.graph

    @cached_property
    def shape(self) -> Value:
        """(b, s, -1)."""
        graph = self.graph
        rows = graph.op("Shape", self.ids, name="ids_shape")
        return graph.op("Concat", rows, graph.ints(-1), name="shape_3d", axis=0)


@dataclass(frozen=True)
class Heads:
    """Rotated q (b, s, h*d), k and v (b, s, k*d) of a layer, its block, its cache's names."""

    layer: int
    block: Attention
    q: Value
    k: Value
    v: Value
    past: tuple[Value, Value]
    present: tuple[Value, Value]


class Profile(Protocol):
    """What the blocks ask of a profile. fuses_experts: it has an operator for experts in floats."""

    fuses_experts: bool

    def norm(self, x: Value, norm: Norm, *, name: str) -> Value:
        """The normed x, last axis."""

    def add_norm(self, x: Value, y: Value, norm: Norm, *, name: str) -> tuple[Value, Value]:
        """(x + y, its norm)."""

    def rotate(self, x: Value, kind: str, *, heads: int, size: int, name: str) -> Value:
        """x (b, s, heads*size) of a layer of this kind, rotated by each token's position."""

    def attend(self, heads: Heads) -> Value:
        """(b, s, h*d)."""


def partial_of(rotation: Rotation, head_dim: int) -> dict[str, Any]:
    """The attribute that says how much of a head rotates, where that is not all of it."""
    rotary_dim = 2 * len(rotation.inv_freq)
    return {} if rotary_dim == head_dim else {"rotary_embedding_dim": rotary_dim}


@dataclass(frozen=True)
class ProfileKind:
    """One value of `--profile`: the declaration PROFILE of a module of this room.

    make: the profile for a graph's inputs. check: (stack) -> None; CannotExpress when an operator
    cannot take the model's sizes. shares_buffer: past and present may be one buffer as long as the
    context. flat: see Store.
    """

    name: str
    make: Callable[[Inputs], Profile]
    check: Callable[[Stack], None]
    opsets: Mapping[str, int]
    ir_version: int
    shares_buffer: bool
    flat: bool
