"""onnxruntime's fused operators: GroupQueryAttention, SkipSimplifiedLayerNormalization, its own RotaryEmbedding.

GroupQueryAttention's own rotation knows one first position a row, so it stays off (do_rotary=0), and padding reaches it as
an attention bias, not as lengths. It takes q, k and v side by side as their one product leaves them; RotaryEmbedding then
sees each head as a place of a row of its own: a head of v is given the row of the table that turns by nothing, and nothing
is cut apart. The operator refuses a table with fewer rows than places, so there are as many of those rows as heads.
Source: onnxruntime docs/ContribOperators.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from converters.to_onnx.graph import MICROSOFT, Value
from converters.to_onnx.profile import Heads, Inputs, Norm, partial_rotary, query_scale
from converters.to_onnx.rotary import Rotation, add_angles, add_tables

# Added to the scores of padding: e to this power is 0, and a row of nothing but padding stays finite, in float16 too.
PADDING = -1e4


@dataclass
class Ort:
    """See Profile for the methods.

    On the CPU GroupQueryAttention refuses several new tokens after a past in a batch of more than one row.
    """

    packs: ClassVar[bool] = True
    inputs: Inputs
    _rotary: dict[tuple[str, int], tuple[Value, ...]] = field(default_factory=dict)
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

    def rotate(self, x: Value, layer_type: str, *, heads: int, name: str, still: int = 0) -> Value:
        """See Profile."""
        rotation, graph, dims = self.inputs.rotations[layer_type], self.inputs.graph, self.inputs.dims
        if rotation is None:
            return x
        key = (layer_type, heads if still else 0)
        if key not in self._rotary:
            made = self._packed(layer_type, heads, still, rotation) if still else self._cache(layer_type, rotation)
            self._rotary[key] = made
        options = {"domain": MICROSOFT, "interleaved": 0, **partial_rotary(rotation, dims)}
        if not still:
            return graph.op("RotaryEmbedding", x, *self._rotary[key], name=name, num_heads=heads, **options)
        apart = graph.op("Reshape", x, graph.ints(-1, heads, dims.head_dim), name=f"{name}_heads")
        turned = graph.op("RotaryEmbedding", apart, *self._rotary[key], name=f"{name}_heads", num_heads=1, **options)
        return graph.op("Reshape", turned, self.inputs.shape, name=name)

    def _cache(self, layer_type: str, rotation: Rotation) -> tuple[Value, Value, Value]:
        """(positions, cos, sin) as the operator takes them: one row a position, or one row a token of this call."""
        frame, graph = self.inputs, self.inputs.graph
        if frame.tables:
            cos, sin, positions = add_tables(frame.store, layer_type, rotation, frame.positions)
            return positions, cos, sin
        cos, sin = self._angles(layer_type, rotation)
        each = graph.op("Range", graph.scalar(0), self._count(), graph.scalar(1), name="rope_row")
        return graph.op("Reshape", each, graph.op("Shape", frame.positions, name="rope_shape"), name="rope_row"), cos, sin

    def _packed(self, layer_type: str, heads: int, still: int, rotation: Rotation) -> tuple[Value, Value, Value]:
        """(row of each head (b*s, heads), cos, sin): `heads` rows that turn by nothing, then one row a token of this call."""
        graph, dtype = self.inputs.graph, self.inputs.store.kind.dtype
        rows = self._looked_up(layer_type, rotation) if self.inputs.tables else self._angles(layer_type, rotation)
        tables = []
        for part, value, row in zip(("cos", "sin"), (1, 0), rows, strict=True):
            one = graph.constant([value], dtype, name=f"rope_{part}_still")
            unturned = graph.op("Expand", one, graph.ints(heads, len(rotation.inv_freq)), name=f"rope_{part}_still")
            tables.append(graph.op("Concat", unturned, row, name=f"rope_{part}_rows", axis=0))
        end = graph.op("Add", self._count(), graph.scalar(heads), name="rope_end")
        each = graph.op("Range", graph.scalar(heads), end, graph.scalar(1), name="rope_row")
        head = graph.op("Range", graph.scalar(0), graph.scalar(heads), graph.scalar(1), name="rope_head")
        turned = graph.op("Less", head, graph.scalar(heads - still), name="rope_turned")
        column = graph.op("Unsqueeze", each, graph.ints(1), name="rope_row")
        return graph.op("Where", turned, column, graph.scalar(0), name="rope_place"), tables[0], tables[1]

    def _angles(self, layer_type: str, rotation: Rotation) -> tuple[Value, Value]:
        """cos and sin (b*s, d/2) of the tokens of this call."""
        graph = self.inputs.graph
        rows = graph.op("Reshape", self.inputs.positions, graph.ints(-1, 1), name="rope_rows")
        return add_angles(self.inputs.store, layer_type, rotation, rows)

    def _looked_up(self, layer_type: str, rotation: Rotation) -> tuple[Value, Value]:
        """cos and sin (b*s, d/2) of the tokens of this call."""
        graph = self.inputs.graph
        cos, sin, positions = add_tables(self.inputs.store, layer_type, rotation, self.inputs.positions)
        rows = graph.op("Reshape", positions, graph.ints(-1), name="rope_rows")
        cos, sin = (graph.op("Gather", table, rows, name="rope_looked_up", axis=0) for table in (cos, sin))
        return cos, sin

    def _count(self) -> Value:
        """Tokens of this call, b*s."""
        return self.inputs.graph.op("Size", self.inputs.positions, name="rope_count")

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
