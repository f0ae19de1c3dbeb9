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
from ropeconv.arch.blocks.attention import Attention, Pairing, Temperature
from ropeconv.arch.blocks.mla import LatentAttention
from ropeconv.arch.stack import Stack

Rotating = Attention | LatentAttention


@dataclass(frozen=True)
class Norm:
    """A norm and the values of its tensors, in the block's own order."""

    block: norms.Norm
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Keys:
    """Rotated keys and values of a layer's new tokens (b, s, k*d), and those of past calls."""

    k: Value
    v: Value
    past: tuple[Value, Value]


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
    def keys(self) -> dict[int, Keys]:
        """Layer -> its keys and values, for those layers that share them."""
        return {}

    @cached_property
    def shape(self) -> Value:
        """(b, s, -1)."""
        graph = self.graph
        rows = graph.op("Shape", self.ids, name="ids_shape")
        return graph.op("Concat", rows, graph.ints(-1), name="shape_3d", axis=0)

    @cached_property
    def real(self) -> Value:
        """(b, s, 1), or (b*s, 1) of a flat profile: 1 for the new tokens, 0 for padding."""
        graph, name = self.graph, "real"
        new = graph.op("Shape", self.ids, name=f"{name}_new", start=1)
        first = graph.op("Neg", new, name=f"{name}_first")
        ends = (first, graph.ints(2**63 - 1), graph.ints(1))
        mask = graph.op("Slice", self.mask, *ends, name=name)
        value = graph.cast(mask, self.store.kind.dtype, name=name)
        if self.store.flat:
            return graph.op("Reshape", value, graph.ints(-1, 1), name=name)
        return graph.op("Unsqueeze", value, graph.ints(-1), name=name)

    def temperature(self, block: Temperature) -> Value:
        """(b, s, 1) of each token's position p: 1 + beta * ln(1 + floor(p / length))."""
        if block not in self._temperatures:
            self._temperatures[block] = self._make_temperature(block)
        return self._temperatures[block]

    @cached_property
    def _temperatures(self) -> dict[Temperature, Value]:
        return {}

    def _make_temperature(self, block: Temperature) -> Value:
        graph, name, dtype = self.graph, "temperature", self.store.kind.dtype
        one, beta = (
            graph.constant(value, "float32", name=f"{name}_{part}")
            for value, part in ((1, "one"), (block.beta, "beta"))
        )
        lengths = graph.op("Div", self.positions, graph.scalar(block.length), name=f"{name}_turns")
        turns = graph.cast(lengths, "float32", name=f"{name}_turns")
        value = graph.op("Log", graph.op("Add", turns, one, name=name), name=name)
        value = graph.op("Add", graph.op("Mul", value, beta, name=name), one, name=name)
        if dtype != "float32":
            value = graph.cast(value, dtype, name=name)
        return graph.op("Unsqueeze", value, graph.ints(-1), name=name)


@dataclass(frozen=True)
class Told:
    """What an operator of attention is told of a layer; see Attention."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    window: int | None = None
    softcap: float | None = None


@dataclass(frozen=True)
class Heads:
    """Rotated q (b, s, h*d), k and v (b, s, k*d) of a layer, what is told of them, its cache's
    names.

    sinks: (h,) where it has some.
    """

    layer: int
    block: Told
    q: Value
    k: Value
    v: Value
    past: tuple[Value, Value]
    present: tuple[Value, Value]
    sinks: Value | None = None


@dataclass(frozen=True)
class Convolution:
    """x (b, size, s) of a layer, a channel's taps (size, 1, taps), its bias (size,) or None, the
    tokens of past calls (b, size, taps - 1) and the name of those for the next.
    """

    layer: int
    size: int
    taps: int
    x: Value
    weight: Value
    bias: Value | None
    past: Value
    present: Value
    activation: str = "none"


@dataclass(frozen=True)
class Recurrence:
    """float32 values of a layer: q and k (b, s, h*d_k), v (b, s, v*d_v); decay (b, s, v), the log
    of what is left of the state; the state (b, v, d_k, d_v) of past calls and the name of the one
    for the next.

    what: the block, in words. heads: h; value_heads: v. scale: of what the state gives for q.
    share: (b, s, v) how much of the error for k is corrected; None = v is added as it is.
    """

    layer: int
    what: str
    heads: int
    value_heads: int
    scale: float
    q: Value
    k: Value
    v: Value
    decay: Value
    past: Value
    present: Value
    share: Value | None = None


class Profile(Protocol):
    """What the blocks ask of a profile. fuses_experts: it has an operator for experts in floats."""

    fuses_experts: bool

    def norm(self, x: Value, norm: Norm, *, name: str) -> Value:
        """The normed x, last axis."""

    def add_norm(self, x: Value, y: Value, norm: Norm, *, name: str) -> tuple[Value, Value]:
        """(x + y, its norm)."""

    def rotate(self, x: Value, kind: str, block: Rotating, *, heads: int, name: str) -> Value:
        """x (b, s, heads*d) of a layer of this kind, rotated by each token's position."""

    def attend(self, heads: Heads) -> Value:
        """(b, s, h*d)."""

    def convolve(self, conv: Convolution) -> Value:
        """(b, size, s)."""

    def rms(self, x: Value, weight: Value, eps: float, *, name: str) -> Value:
        """x / sqrt(mean(x^2) + eps) * weight over the last axis."""

    def recur(self, recurrence: Recurrence) -> Value:
        """(b, s, v*d_v) what the state gives for q; CannotExpress where no operator does."""


def rotary_attributes(rotation: Rotation, block: Rotating, *, heads: int) -> dict[str, Any]:
    """How the values of a head pair up, and how many of them rotate where not all of them do."""
    interleaved = int(block.pairing is Pairing.ADJACENT)
    rotary_dim = 2 * len(rotation.inv_freq)
    part = {} if rotary_dim == block.rotary_size else {"rotary_embedding_dim": rotary_dim}
    return {"num_heads": heads, "interleaved": interleaved, **part}


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
