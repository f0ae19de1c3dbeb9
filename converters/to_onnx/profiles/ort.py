"""onnxruntime's own operators: GroupQueryAttention, SkipSimplifiedLayerNormalization, MoE, its
RotaryEmbedding.

GroupQueryAttention's own rotation knows one first position a row, so it stays off (do_rotary=0),
and padding reaches it as an attention bias, not as lengths. On the CPU it refuses several new
tokens after a past in a batch of more than one row. Source: onnxruntime docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from converters.to_onnx.blocks import find
from converters.to_onnx.blocks.rotary import add_angles, add_tables
from converters.to_onnx.carry import Rotation
from converters.to_onnx.graph import MICROSOFT, Value
from converters.to_onnx.profiles._shared import (
    Convolution,
    Heads,
    Inputs,
    Norm,
    ProfileKind,
    Recurrence,
    Rotating,
    rotary_attributes,
)
from ropeconv.arch.blocks.norm import BareLayerNorm, BareRmsNorm, HeadLayerNorms, LayerNorm, RmsNorm
from ropeconv.arch.stack import Stack
from ropeconv.errors import CannotExpress

# Added to the scores of padding: e to this power is 0, and a row of nothing but padding stays
# finite, in float16 too.
PADDING = -1e4


@dataclass(frozen=True)
class NormOperators:
    """A norm's operator, the one that adds before it norms, what the first is told beside."""

    alone: str
    added: str
    attributes: Mapping[str, int] = field(default_factory=dict)


_LAYER_NORM = NormOperators("LayerNormalization", "SkipLayerNormalization")
_RMS_NORM = NormOperators(
    "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", {"stash_type": 1}
)
NORMS: dict[type, NormOperators] = {
    RmsNorm: _RMS_NORM,
    BareRmsNorm: _RMS_NORM,
    LayerNorm: _LAYER_NORM,
    BareLayerNorm: _LAYER_NORM,
    HeadLayerNorms: _LAYER_NORM,
}


@dataclass
class Ort:
    """See the module, and Profile."""

    inputs: Inputs
    fuses_experts: bool = True
    _rotary: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    _frame: list[Value] = field(default_factory=list)

    def norm(self, x: Value, norm: Norm, *, name: str) -> Value:
        """See Profile."""
        said = find(NORMS, norm.block)
        attributes: dict[str, Any] = {
            "axis": -1,
            "epsilon": float(norm.block.eps),
            **said.attributes,
        }
        return self.inputs.graph.op(said.alone, x, *norm.values, name=name, **attributes)

    def add_norm(self, x: Value, y: Value, norm: Norm, *, name: str) -> tuple[Value, Value]:
        """See Profile."""
        kind = find(NORMS, norm.block).added
        inputs = (x, y, *norm.values)
        outputs = (name, "", "", "residual")
        normed, *_, total = self.inputs.graph.ops(
            kind, inputs, outputs, domain=MICROSOFT, epsilon=float(norm.block.eps)
        )
        return total, normed

    def rotate(self, x: Value, kind: str, block: Rotating, *, heads: int, name: str) -> Value:
        """See Profile."""
        rotation = self.inputs.rotations[kind]
        if rotation is None:
            return x
        if kind not in self._rotary:
            self._rotary[kind] = self._cache(kind, rotation)
        attributes = rotary_attributes(rotation, block, heads=heads)
        values = (x, *self._rotary[kind])
        return self.inputs.graph.op(
            "RotaryEmbedding", *values, name=name, domain=MICROSOFT, **attributes
        )

    def _cache(self, kind: str, rotation: Rotation) -> tuple[Value, Value, Value]:
        """(positions, cos, sin) as the operator takes them.

        One row a position, or one row a token of this call.
        """
        frame, graph = self.inputs, self.inputs.graph
        if frame.tables:
            cos, sin, positions = add_tables(frame.store, kind, rotation, frame.positions)
            return positions, cos, sin
        rows = graph.op("Reshape", frame.positions, graph.ints(-1, 1), name="rope_rows")
        cos, sin = add_angles(frame.store, kind, rotation, rows)
        count = graph.op("Size", frame.positions, name="rope_count")
        each = graph.op("Range", graph.scalar(0), count, graph.scalar(1), name="rope_row")
        shape = graph.op("Shape", frame.positions, name="rope_shape")
        return graph.op("Reshape", each, shape, name="rope_row"), cos, sin

    def attend(self, heads: Heads) -> Value:
        """See Profile."""
        block = heads.block
        if not self._frame:
            self._frame += self._lengths_and_bias()
        lengths, total, bias = self._frame
        inputs = [heads.q, heads.k, heads.v, *heads.past, lengths, total, "", "", "", bias]
        if heads.sinks is not None:
            inputs.append(heads.sinks)
        outputs = (f"layer_{heads.layer}_attention", *heads.present)
        sizes: dict[str, Any] = {
            "num_heads": block.num_heads,
            "kv_num_heads": block.num_kv_heads,
            "scale": block.scale,
        }
        if block.window is not None:
            sizes["local_window_size"] = block.window
        if block.softcap is not None:
            sizes["softcap"] = block.softcap
        return self.inputs.graph.ops(
            "GroupQueryAttention", inputs, outputs, domain=MICROSOFT, do_rotary=0, **sizes
        )[0]

    def convolve(self, conv: Convolution) -> Value:
        """See Profile."""
        inputs = (conv.x, conv.weight, conv.bias or "", conv.past)
        outputs = (f"layer_{conv.layer}_conv", conv.present)
        return self.inputs.graph.ops(
            "CausalConvWithState", inputs, outputs, domain=MICROSOFT, activation=conv.activation
        )[0]

    def rms(self, x: Value, weight: Value, eps: float, *, name: str) -> Value:
        """See Profile."""
        said = NORMS[RmsNorm]
        own: dict[str, Any] = {"axis": -1, "epsilon": float(eps), **said.attributes}
        return self.inputs.graph.op(said.alone, x, weight, name=name, **own)

    def recur(self, recurrence: Recurrence) -> Value:
        """See Profile."""
        one = recurrence
        inputs = [one.q, one.k, one.v, one.past, one.decay]
        if one.share is not None:
            inputs.append(one.share)
        outputs = (f"layer_{one.layer}_state", one.present)
        return self.inputs.graph.ops(
            "LinearAttention",
            inputs,
            outputs,
            domain=MICROSOFT,
            q_num_heads=one.heads,
            kv_num_heads=one.value_heads,
            update_rule="gated" if one.share is None else "gated_delta",
            scale=one.scale,
        )[0]

    def _lengths_and_bias(self) -> tuple[Value, Value, Value]:
        """(b,) int32 t - 1 of every row, (1,) int32 t, (b, 1, s, t) 0 or PADDING."""
        graph, mask = self.inputs.graph, self.inputs.mask
        rows = graph.op("Shape", mask, name="batch", end=1)
        columns = graph.op("Shape", mask, name="total", start=1)
        total = graph.cast(columns, "int32", name="total_length")
        last = graph.op("Sub", total, graph.constant([1], "int32", name="one"), name="last")
        lengths = graph.op("Expand", last, rows, name="lengths")
        cost = self._costs()
        new = graph.op("Shape", self.inputs.ids, name="new", start=1)
        wanted = graph.op("Concat", rows, graph.ints(1), new, columns, name="bias_shape", axis=0)
        bias = graph.op("Unsqueeze", cost, graph.ints(1, 2), name="bias")
        return lengths, total, graph.op("Expand", bias, wanted, name="bias")

    def _costs(self) -> Value:
        """(b, t) 0 or PADDING."""
        graph, dtype = self.inputs.graph, self.inputs.store.kind.dtype
        real = graph.cast(self.inputs.mask, "bool", name="mask_real")
        zero = graph.constant(0, dtype, name="zero")
        padding = graph.constant(PADDING, dtype, name="padding")
        return graph.op("Where", real, zero, padding, name="bias")


def _check(stack: Stack) -> None:
    sizes = {block.head_dim for block in stack.attentions.values()}
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
