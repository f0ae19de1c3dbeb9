"""onnxruntime's own operators: GroupQueryAttention, SkipSimplifiedLayerNormalization, its RotaryEmbedding.

GroupQueryAttention's own rotation knows one first position a row, so it stays off (do_rotary=0),
and padding reaches it as an attention bias, not as lengths. Source: onnxruntime
docs/ContribOperators.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from converters.to_onnx.blocks.rotary import add_angles, add_tables
from converters.to_onnx.carry import Rotation
from converters.to_onnx.graph import MICROSOFT, Value
from converters.to_onnx.profiles._shared import Heads, Inputs, Norm, ProfileKind, partial_of
from ropeconv.arch.stack import Stack
from ropeconv.errors import CannotExpress

# Added to the scores of padding: e to this power is 0, and a row of nothing but padding stays
# finite, in float16 too.
PADDING = -1e4


@dataclass
class Ort:
    """onnxruntime's own: GroupQueryAttention, SkipSimplifiedLayerNormalization, its RotaryEmbedding.

    On the CPU GroupQueryAttention refuses several new tokens after a past in a batch of more than one row.
    """

    inputs: Inputs
    fuses_experts: bool = True
    _rotary: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    _frame: list[Value] = field(default_factory=list)

    def norm(self, x: Value, norm: Norm, *, name: str) -> Value:
        """See Profile."""
        graph = self.inputs.graph
        if norm.bias is not None:
            return graph.op(
                "LayerNormalization",
                x,
                norm.weight,
                norm.bias,
                name=name,
                axis=-1,
                epsilon=norm.eps,
            )
        return graph.op(
            "SimplifiedLayerNormalization",
            x,
            norm.weight,
            name=name,
            axis=-1,
            epsilon=norm.eps,
            stash_type=1,
        )

    def add_norm(self, x: Value, y: Value, norm: Norm, *, name: str) -> tuple[Value, Value]:
        """See Profile."""
        kind, extra = (
            ("SkipSimplifiedLayerNormalization", ())
            if norm.bias is None
            else ("SkipLayerNormalization", (norm.bias,))
        )
        inputs, outputs = (x, y, norm.weight, *extra), (name, "", "", "residual")
        normed, *_, total = self.inputs.graph.ops(
            kind, inputs, outputs, domain=MICROSOFT, epsilon=norm.eps
        )
        return total, normed

    def rotate(self, x: Value, kind: str, *, heads: int, size: int, name: str) -> Value:
        """See Profile."""
        rotation, frame = self.inputs.rotations[kind], self.inputs
        if rotation is None:
            return x
        if kind not in self._rotary:
            self._rotary[kind] = self._cache(kind, rotation)
        partial = partial_of(rotation, size)
        values = (x, *self._rotary[kind])
        return frame.graph.op(
            "RotaryEmbedding",
            *values,
            name=name,
            domain=MICROSOFT,
            num_heads=heads,
            interleaved=0,
            **partial,
        )

    def _cache(self, kind: str, rotation: Rotation) -> tuple[Value, Value, Value]:
        """(positions, cos, sin) as the operator takes them: one row a position, or one row a token of this call."""
        frame, graph = self.inputs, self.inputs.graph
        if frame.tables:
            cos, sin, positions = add_tables(frame.store, kind, rotation, frame.positions)
            return positions, cos, sin
        rows = graph.op("Reshape", frame.positions, graph.ints(-1, 1), name="rope_rows")
        cos, sin = add_angles(frame.store, kind, rotation, rows)
        count = graph.op("Size", frame.positions, name="rope_count")
        each = graph.op("Range", graph.scalar(0), count, graph.scalar(1), name="rope_row")
        return (
            graph.op(
                "Reshape",
                each,
                graph.op("Shape", frame.positions, name="rope_shape"),
                name="rope_row",
            ),
            cos,
            sin,
        )

    def attend(self, heads: Heads) -> Value:
        """See Profile."""
        block = heads.block
        if not self._frame:
            self._frame += self._lengths_and_bias()
        lengths, total, bias = self._frame
        inputs = (heads.q, heads.k, heads.v, *heads.past, lengths, total, "", "", "", bias)
        outputs = (f"layer_{heads.layer}_attention", *heads.present)
        sizes: dict[str, Any] = {
            "num_heads": block.num_heads,
            "kv_num_heads": block.num_kv_heads,
            "scale": block.scale,
        }
        window = {} if block.window is None else {"local_window_size": block.window}
        return self.inputs.graph.ops(
            "GroupQueryAttention", inputs, outputs, domain=MICROSOFT, do_rotary=0, **sizes, **window
        )[0]

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
        return (
            lengths,
            total,
            graph.op(
                "Expand",
                graph.op("Unsqueeze", cost, graph.ints(1, 2), name="bias"),
                wanted,
                name="bias",
            ),
        )


def _check(stack: Stack) -> None:
    sizes = {layer.mixer.head_dim for layer in stack.layers}
    wrong = next((size for size in sizes if size % 8), None)
    if wrong is not None:
        raise CannotExpress(
            f"onnxruntime's GroupQueryAttention takes head sizes that are multiples of 8, "
            f"this model has {wrong}; take --profile standard"
        )


# The lowest versions that have the operators, so that older onnxruntimes load the graph too.
PROFILE = ProfileKind(
    "ort", Ort, _check, {"": 21, MICROSOFT: 1}, 10, shares_buffer=True, flat=False
)
