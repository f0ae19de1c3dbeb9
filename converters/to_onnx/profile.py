"""What blocks.py asks of a way to say the decoder, and what it hands over. The ways: standard.py, ort.py.

Both take positions and mask as inputs, token by token, so rows padded on the left, on the right or in the middle are right.
Shape letters: b batch, s new tokens, p past tokens, t = p + s, h heads, k key/value heads, d head_dim, e hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

from converters.to_onnx.graph import Graph, Value
from converters.to_onnx.rotary import Rotation
from converters.to_onnx.weights import Store
from ropeconv.arch._base import Dims


@dataclass(frozen=True)
class Norm:
    """A norm's weight and, for LayerNorm, bias."""

    weight: Value
    bias: Value | None
    eps: float


@dataclass(frozen=True)
class Inputs:
    """Values that every layer reads. rotations: layer type -> numbers."""

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

    @property
    def dims(self) -> Dims:
        """The model's sizes."""
        return self.store.model.dims

    @cached_property
    def shape(self) -> Value:
        """(b, s, -1)."""
        graph = self.graph
        return graph.op("Concat", graph.op("Shape", self.ids, name="ids_shape"), graph.ints(-1), name="shape_3d", axis=0)


@dataclass(frozen=True)
class Heads:
    """Rotated q (b, s, h*d), k and v (b, s, k*d) of a layer, its cache's names, its window in tokens or None.

    Packed: q is all three side by side, k and v are "".
    """

    layer: int
    q: Value
    k: Value
    v: Value
    past: tuple[Value, Value]
    present: tuple[Value, Value]
    window: int | None


class Profile(Protocol):
    """What blocks.py asks of a profile. packs: `rotate` and `attend` take q, k and v side by side."""

    packs: ClassVar[bool]

    def norm(self, x: Value, norm: Norm, *, name: str) -> Value:
        """The normed x, last axis."""

    def add_norm(self, x: Value, y: Value, norm: Norm, *, name: str) -> tuple[Value, Value]:
        """(x + y, its norm)."""

    def rotate(self, x: Value, layer_type: str, *, heads: int, name: str, still: int = 0) -> Value:
        """x (b, s, heads*d) rotated by each token's position, all but the last `still` heads; some only where it packs."""

    def attend(self, heads: Heads) -> Value:
        """(b, s, h*d)."""


def query_scale(dims: Dims) -> float:
    """What q k^T is multiplied by."""
    return float((dims.query_scale_dim or dims.head_dim) ** -0.5)


def partial_rotary(rotation: Rotation, dims: Dims) -> dict[str, Any]:
    rotary_dim = 2 * len(rotation.inv_freq)
    return {} if rotary_dim == dims.head_dim else {"rotary_embedding_dim": rotary_dim}
