"""Operators of ai.onnx alone: RMSNormalization, RotaryEmbedding, Attention under an explicit mask.

Sources: onnx docs/Operators.md (opset 23).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from converters.to_onnx.blocks import find
from converters.to_onnx.blocks.rotary import add_angles, add_tables
from converters.to_onnx.carry import Rotation
from converters.to_onnx.graph import Graph, Value
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
from converters.to_onnx.profiles._sinks import SinkColumns
from ropeconv.arch.blocks.norm import BareLayerNorm, BareRmsNorm, HeadLayerNorms, LayerNorm, RmsNorm
from ropeconv.arch.stack import Stack
from ropeconv.errors import CannotExpress

NORMS: dict[type, str] = {
    RmsNorm: "RMSNormalization",
    LayerNorm: "LayerNormalization",
    BareLayerNorm: "LayerNormalization",
    BareRmsNorm: "RMSNormalization",
    HeadLayerNorms: "LayerNormalization",
}


@dataclass
class Standard:
    """See the module, and Profile."""

    inputs: Inputs
    fuses_experts: bool = False
    _rotary: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    _masks: dict[int | None, Value] = field(default_factory=dict)

    def norm(self, x: Value, norm: Norm, *, name: str) -> Value:
        """See Profile."""
        kind, eps = find(NORMS, norm.block), norm.block.eps
        return self.inputs.graph.op(kind, x, *norm.values, name=name, axis=-1, epsilon=float(eps))

    def add_norm(self, x: Value, y: Value, norm: Norm, *, name: str) -> tuple[Value, Value]:
        """See Profile."""
        total = self.inputs.graph.op("Add", x, y, name="residual")
        return total, self.norm(total, norm, name=name)

    def rotate(self, x: Value, kind: str, block: Rotating, *, heads: int, name: str) -> Value:
        """See Profile."""
        rotation = self.inputs.rotations[kind]
        if rotation is None:
            return x
        if kind not in self._rotary:
            self._rotary[kind] = self._cache(kind, rotation)
        attributes = rotary_attributes(rotation, block, heads=heads)
        values = (x, *self._rotary[kind])
        return self.inputs.graph.op("RotaryEmbedding", *values, name=name, **attributes)

    def _cache(self, kind: str, rotation: Rotation) -> tuple[Value, ...]:
        """(cos, sin, positions) of tables, or (cos, sin) of each token."""
        frame, graph = self.inputs, self.inputs.graph
        if frame.tables:
            return add_tables(frame.store, kind, rotation, frame.positions)
        columns = graph.op("Unsqueeze", frame.positions, graph.ints(-1), name="rope_columns")
        return add_angles(frame.store, kind, rotation, columns)

    def attend(self, heads: Heads) -> Value:
        """See Profile."""
        mask = self._mask(heads.block.window)
        output = f"layer_{heads.layer}_attention"
        if heads.sinks is None:
            values: tuple[Value, ...] = (heads.q, heads.k, heads.v, mask)
            return self._attention(heads, values, (output, *heads.present))[0]
        names = [f"layer_{heads.layer}_{part}_and_sink" for part in ("keys", "values")]
        values = self._sinks.inputs(heads, mask)
        y, *extended = self._attention(heads, values, (output, *names))
        for longer, present in zip(extended, heads.present, strict=True):
            self._sinks.cut(longer, present)
        return y

    def _attention(
        self, heads: Heads, inputs: Sequence[Value], outputs: Sequence[Value]
    ) -> list[Value]:
        block = heads.block
        attributes: dict[str, Any] = {
            "q_num_heads": block.num_heads,
            "kv_num_heads": block.num_kv_heads,
            "scale": block.scale,
            "is_causal": 0,
        }
        if block.softcap is not None:
            attributes["softcap"] = block.softcap
        values = (*inputs, *heads.past)
        return self.inputs.graph.ops("Attention", values, outputs, **attributes)

    def convolve(self, conv: Convolution) -> Value:
        """See Profile."""
        graph, name = self.inputs.graph, f"layer_{conv.layer}_conv"
        x = graph.op("Concat", conv.past, conv.x, name=f"{name}_whole", axis=2)
        ends = (graph.ints(1 - conv.taps), graph.ints(2**63 - 1), graph.ints(2))
        graph.op("Slice", x, *ends, name=conv.present)
        bias = () if conv.bias is None else (conv.bias,)
        return graph.op("Conv", x, conv.weight, *bias, name=name, group=conv.size)

    def rms(self, x: Value, weight: Value, eps: float, *, name: str) -> Value:
        """See Profile."""
        kind = NORMS[RmsNorm]
        return self.inputs.graph.op(kind, x, weight, name=name, axis=-1, epsilon=float(eps))

    def recur(self, recurrence: Recurrence) -> Value:
        """None: see Profile."""
        raise CannotExpress(
            f"layer {recurrence.layer} has a {recurrence.what}, whose operator LinearAttention "
            f"ai.onnx has from opset 27 on and onnxruntime does not run there; take --profile ort"
        )

    @cached_property
    def _sinks(self) -> SinkColumns:
        return SinkColumns(self.inputs)

    def _mask(self, window: int | None) -> Value:
        """(b, 1, s, t) bool: what each token sees.

        A token always sees itself, so that padding stays finite.
        """
        if window not in self._masks:
            self._masks[window] = self._make_mask(window)
        return self._masks[window]

    def _make_mask(self, window: int | None) -> Value:
        graph = self.inputs.graph
        rows, columns = _indices(self.inputs)
        real = graph.cast(self.inputs.mask, "bool", name="mask_real")
        real = graph.op("Unsqueeze", real, graph.ints(1, 2), name="mask_real")
        own = graph.op("Equal", rows, columns, name="mask_self")
        real = graph.op("Or", real, own, name="mask_real")
        seen = graph.op("LessOrEqual", columns, rows, name="mask_causal")
        if window is not None:
            distance = graph.op("Sub", rows, columns, name="mask_distance")
            near = graph.op("Less", distance, graph.scalar(window), name="mask_window")
            seen = graph.op("And", seen, near, name="mask_window")
        return graph.op("And", real, seen, name="mask")


def _indices(inputs: Inputs) -> tuple[Value, Value]:
    """Places in the sequence, past included: of the new tokens (s, 1), of all tokens (1, t)."""
    graph = inputs.graph
    new = _length(graph, inputs.ids, name="new", shape="new_shape")
    total = _length(graph, inputs.mask, name="total", shape="mask_shape")
    every = graph.op("Range", graph.scalar(0), total, graph.scalar(1), name="place")
    past = graph.op("Sub", total, new, name="past")
    own = graph.op("Range", past, total, graph.scalar(1), name="place_new")
    rows = graph.op("Unsqueeze", own, graph.ints(1), name="place_row")
    return rows, graph.op("Unsqueeze", every, graph.ints(0), name="place_column")


def _length(graph: Graph, values: Value, *, name: str, shape: str) -> Value:
    """Size of the second axis."""
    sizes = graph.op("Shape", values, name=shape)
    return graph.op("Gather", sizes, graph.scalar(1), name=name, axis=0)


def _check(_stack: Stack) -> None:
    """Every size will do."""


PROFILE = ProfileKind("standard", Standard, _check, {"": 23}, 11, shares_buffer=False, flat=True)
