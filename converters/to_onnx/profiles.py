"""Two ways to say the same decoder: onnxruntime's fused operators, or operators of ai.onnx alone.

Both take positions and mask as inputs, token by token, so rows padded on the left, on the right or in the middle are right:
GroupQueryAttention's own rotation knows one first position a row, so it stays off (do_rotary=0), and padding reaches it as
an attention bias, not as lengths. Sources: onnxruntime docs/ContribOperators.md, onnx docs/Operators.md (opset 23).
Shape letters: b batch, s new tokens, p past tokens, t = p + s, h heads, k key/value heads, d head_dim, e hidden. Every
matrix is multiplied with its rows as stored: in ai.onnx only Gemm does, so there the residual stream is (b*s, e);
onnxruntime's FusedMatMul takes (b, s, e), and no node has to say another shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from converters.to_onnx.graph import MICROSOFT, Graph, Value
from converters.to_onnx.rotary import Rotation, add_angles, add_tables
from converters.to_onnx.weights import Store
from ropeconv.arch._base import Dims
from ropeconv.errors import CannotExpress

# Added to the scores of padding: e to this power is 0, and a row of nothing but padding stays finite, in float16 too.
PADDING = -1e4


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
    """Rotated q (b, s, h*d), k and v (b, s, k*d) of a layer, its cache's names, its window in tokens or None."""

    layer: int
    q: Value
    k: Value
    v: Value
    past: tuple[Value, Value]
    present: tuple[Value, Value]
    window: int | None


class Profile(Protocol):
    """What blocks.py asks of a profile."""

    def norm(self, x: Value, norm: Norm, *, name: str) -> Value:
        """The normed x, last axis."""

    def add_norm(self, x: Value, y: Value, norm: Norm, *, name: str) -> tuple[Value, Value]:
        """(x + y, its norm)."""

    def rotate(self, x: Value, layer_type: str, *, heads: int, name: str) -> Value:
        """x (b, s, heads*d) rotated by each token's position."""

    def attend(self, heads: Heads) -> Value:
        """(b, s, h*d)."""


@dataclass
class Standard:
    """ai.onnx 23: RMSNormalization, RotaryEmbedding, Attention under an explicit mask."""

    inputs: Inputs
    _rotary: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    _masks: dict[int | None, Value] = field(default_factory=dict)

    def norm(self, x: Value, norm: Norm, *, name: str) -> Value:
        """See Profile."""
        kind, extra = ("RMSNormalization", ()) if norm.bias is None else ("LayerNormalization", (norm.bias,))
        return self.inputs.graph.op(kind, x, norm.weight, *extra, name=name, axis=-1, epsilon=norm.eps)

    def add_norm(self, x: Value, y: Value, norm: Norm, *, name: str) -> tuple[Value, Value]:
        """See Profile."""
        total = self.inputs.graph.op("Add", x, y, name="residual")
        return total, self.norm(total, norm, name=name)

    def rotate(self, x: Value, layer_type: str, *, heads: int, name: str) -> Value:
        """See Profile."""
        rotation, frame = self.inputs.rotations[layer_type], self.inputs
        if rotation is None:
            return x
        if layer_type not in self._rotary:
            self._rotary[layer_type] = self._cache(layer_type, rotation)
        partial = _partial(rotation, frame.dims)
        values = self._rotary[layer_type]
        return frame.graph.op("RotaryEmbedding", x, *values, name=name, num_heads=heads, interleaved=0, **partial)

    def _cache(self, layer_type: str, rotation: Rotation) -> tuple[Value, ...]:
        """(cos, sin, positions) of tables, or (cos, sin) of each token."""
        frame, graph = self.inputs, self.inputs.graph
        if frame.tables:
            return add_tables(frame.store, layer_type, rotation, frame.positions)
        columns = graph.op("Unsqueeze", frame.positions, graph.ints(-1), name="rope_columns")
        return add_angles(frame.store, layer_type, rotation, columns)

    def attend(self, heads: Heads) -> Value:
        """See Profile."""
        frame, dims = self.inputs, self.inputs.dims
        inputs = (heads.q, heads.k, heads.v, self._mask(heads.window), *heads.past)
        outputs = (f"layer_{heads.layer}_attention", *heads.present)
        sizes: dict[str, Any] = {"q_num_heads": dims.num_heads, "kv_num_heads": dims.num_kv_heads, "scale": query_scale(dims)}
        return frame.graph.ops("Attention", inputs, outputs, is_causal=0, **sizes)[0]

    def _mask(self, window: int | None) -> Value:
        """(b, 1, s, t) bool: what each token sees. A token always sees itself, so that padding stays finite."""
        if window not in self._masks:
            graph, (rows, columns) = self.inputs.graph, _indices(self.inputs)
            real = graph.op(
                "Unsqueeze", graph.cast(self.inputs.mask, "bool", name="mask_real"), graph.ints(1, 2), name="mask_real"
            )
            real = graph.op("Or", real, graph.op("Equal", rows, columns, name="mask_self"), name="mask_real")
            seen = graph.op("LessOrEqual", columns, rows, name="mask_causal")
            if window is not None:
                distance = graph.op("Sub", rows, columns, name="mask_distance")
                near = graph.op("Less", distance, graph.scalar(window), name="mask_window")
                seen = graph.op("And", seen, near, name="mask_window")
            self._masks[window] = graph.op("And", real, seen, name="mask")
        return self._masks[window]


@dataclass
class Ort:
    """onnxruntime's own: GroupQueryAttention, SkipSimplifiedLayerNormalization, its RotaryEmbedding.

    On the CPU GroupQueryAttention refuses several new tokens after a past in a batch of more than one row.
    """

    inputs: Inputs
    _rotary: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    _frame: list[Value] = field(default_factory=list)

    def norm(self, x: Value, norm: Norm, *, name: str) -> Value:
        """See Profile."""
        graph = self.inputs.graph
        if norm.bias is not None:
            return graph.op("LayerNormalization", x, norm.weight, norm.bias, name=name, axis=-1, epsilon=norm.eps)
        return graph.op("SimplifiedLayerNormalization", x, norm.weight, name=name, axis=-1, epsilon=norm.eps, stash_type=1)

    def add_norm(self, x: Value, y: Value, norm: Norm, *, name: str) -> tuple[Value, Value]:
        """See Profile."""
        kind, extra = ("SkipSimplifiedLayerNormalization", ()) if norm.bias is None else ("SkipLayerNormalization", (norm.bias,))
        inputs, outputs = (x, y, norm.weight, *extra), (name, "", "", "residual")
        normed, *_, total = self.inputs.graph.ops(kind, inputs, outputs, domain=MICROSOFT, epsilon=norm.eps)
        return total, normed

    def rotate(self, x: Value, layer_type: str, *, heads: int, name: str) -> Value:
        """See Profile."""
        rotation, frame = self.inputs.rotations[layer_type], self.inputs
        if rotation is None:
            return x
        if layer_type not in self._rotary:
            self._rotary[layer_type] = self._cache(layer_type, rotation)
        partial = _partial(rotation, frame.dims)
        values = (x, *self._rotary[layer_type])
        return frame.graph.op("RotaryEmbedding", *values, name=name, domain=MICROSOFT, num_heads=heads, interleaved=0, **partial)

    def _cache(self, layer_type: str, rotation: Rotation) -> tuple[Value, Value, Value]:
        """(positions, cos, sin) as the operator takes them: one row a position, or one row a token of this call."""
        frame, graph = self.inputs, self.inputs.graph
        if frame.tables:
            cos, sin, positions = add_tables(frame.store, layer_type, rotation, frame.positions)
            return positions, cos, sin
        rows = graph.op("Reshape", frame.positions, graph.ints(-1, 1), name="rope_rows")
        cos, sin = add_angles(frame.store, layer_type, rotation, rows)
        count = graph.op("Size", frame.positions, name="rope_count")
        each = graph.op("Range", graph.scalar(0), count, graph.scalar(1), name="rope_row")
        return graph.op("Reshape", each, graph.op("Shape", frame.positions, name="rope_shape"), name="rope_row"), cos, sin

    def attend(self, heads: Heads) -> Value:
        """See Profile."""
        dims = self.inputs.dims
        if not self._frame:
            self._frame += self._lengths_and_bias()
        lengths, total, bias = self._frame
        inputs = (heads.q, heads.k, heads.v, *heads.past, lengths, total, "", "", "", bias)
        outputs = (f"layer_{heads.layer}_attention", *heads.present)
        sizes: dict[str, Any] = {"num_heads": dims.num_heads, "kv_num_heads": dims.num_kv_heads, "scale": query_scale(dims)}
        window = {} if heads.window is None else {"local_window_size": heads.window}
        return self.inputs.graph.ops("GroupQueryAttention", inputs, outputs, domain=MICROSOFT, do_rotary=0, **sizes, **window)[0]

    def _lengths_and_bias(self) -> tuple[Value, Value, Value]:
        """(b,) int32 t - 1 of every row, (1,) int32 t, (b, 1, s, t) 0 or PADDING."""
        graph, mask, dtype = self.inputs.graph, self.inputs.mask, self.inputs.store.kind.dtype
        rows = graph.op("Shape", mask, name="batch", end=1)
        columns = graph.op("Shape", mask, name="total", start=1)
        total = graph.cast(columns, "int32", name="total_length")
        last = graph.op("Sub", total, graph.constant([1], "int32", name="one"), name="last")
        lengths = graph.op("Expand", last, rows, name="lengths")
        cost = graph.op(
            "Where", graph.cast(mask, "bool", name="mask_real"), graph.constant(0, dtype, name="zero"),
            graph.constant(PADDING, dtype, name="padding"), name="bias",
        )  # fmt: skip
        new = graph.op("Shape", self.inputs.ids, name="new", start=1)
        wanted = graph.op("Concat", rows, graph.ints(1), new, columns, name="bias_shape", axis=0)
        return lengths, total, graph.op("Expand", graph.op("Unsqueeze", cost, graph.ints(1, 2), name="bias"), wanted, name="bias")


def query_scale(dims: Dims) -> float:
    """What q k^T is multiplied by."""
    return float((dims.query_scale_dim or dims.head_dim) ** -0.5)


def _partial(rotation: Rotation, dims: Dims) -> dict[str, Any]:
    rotary_dim = 2 * len(rotation.inv_freq)
    return {} if rotary_dim == dims.head_dim else {"rotary_embedding_dim": rotary_dim}


def _indices(inputs: Inputs) -> tuple[Value, Value]:
    """Places in the sequence, past included: of the new tokens (s, 1), of all tokens (1, t)."""
    graph = inputs.graph
    new = graph.op("Gather", graph.op("Shape", inputs.ids, name="new_shape"), graph.scalar(1), name="new", axis=0)
    total = graph.op("Gather", graph.op("Shape", inputs.mask, name="mask_shape"), graph.scalar(1), name="total", axis=0)
    every = graph.op("Range", graph.scalar(0), total, graph.scalar(1), name="place")
    past = graph.op("Sub", total, new, name="past")
    own = graph.op("Range", past, total, graph.scalar(1), name="place_new")
    return graph.op("Unsqueeze", own, graph.ints(1), name="place_row"), graph.op(
        "Unsqueeze", every, graph.ints(0), name="place_column"
    )


@dataclass(frozen=True)
class ProfileKind:
    """One value of `--profile`. shares_buffer: past and present may be one buffer as long as the context. flat: see Store."""

    name: str
    make: type[Standard] | type[Ort]
    opsets: Mapping[str, int]
    ir_version: int
    shares_buffer: bool
    flat: bool


# The lowest versions that have the operators, so that older onnxruntimes load the graph too.
PROFILES = {
    kind.name: kind
    for kind in (
        ProfileKind("ort", Ort, {"": 21, MICROSOFT: 1}, 10, shares_buffer=True, flat=False),
        ProfileKind("standard", Standard, {"": 23}, 11, shares_buffer=False, flat=True),
    )
}


def check_profile(kind: ProfileKind, dims: Dims) -> None:
    """CannotExpress when an operator of the profile cannot take the model's sizes."""
    if kind.make is Ort and dims.head_dim % 8:
        raise CannotExpress(
            f"onnxruntime's GroupQueryAttention takes head sizes that are multiples of 8, this model has {dims.head_dim}; "
            f"take --profile standard"
        )
