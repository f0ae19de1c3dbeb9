"""Operators of ai.onnx alone: RMSNormalization, RotaryEmbedding, Attention under an explicit mask.

Sources: onnx docs/Operators.md (opset 23).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from converters.to_onnx.blocks.rotary import add_angles, add_tables
from converters.to_onnx.carry import Rotation
from converters.to_onnx.graph import Value
from converters.to_onnx.profiles._shared import Heads, Inputs, Norm, ProfileKind, partial_of
from ropeconv.arch.stack import Stack


@dataclass
class Standard:
    """ai.onnx 23: RMSNormalization, RotaryEmbedding, Attention under an explicit mask."""

    inputs: Inputs
    fuses_experts: bool = False
    _rotary: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    _masks: dict[int | None, Value] = field(default_factory=dict)

    def norm(self, x: Value, norm: Norm, *, name: str) -> Value:
        """See Profile."""
        kind, extra = (
            ("RMSNormalization", ()) if norm.bias is None else ("LayerNormalization", (norm.bias,))
        )
        return self.inputs.graph.op(
            kind, x, norm.weight, *extra, name=name, axis=-1, epsilon=norm.eps
        )

    def add_norm(self, x: Value, y: Value, norm: Norm, *, name: str) -> tuple[Value, Value]:
        """See Profile."""
        total = self.inputs.graph.op("Add", x, y, name="residual")
        return total, self.norm(total, norm, name=name)

    def rotate(self, x: Value, kind: str, *, heads: int, size: int, name: str) -> Value:
        """See Profile."""
        rotation, frame = self.inputs.rotations[kind], self.inputs
        if rotation is None:
            return x
        if kind not in self._rotary:
            self._rotary[kind] = self._cache(kind, rotation)
        partial = partial_of(rotation, size)
        values = self._rotary[kind]
        return frame.graph.op(
            "RotaryEmbedding", x, *values, name=name, num_heads=heads, interleaved=0, **partial
        )

    def _cache(self, kind: str, rotation: Rotation) -> tuple[Value, ...]:
        """(cos, sin, positions) of tables, or (cos, sin) of each token."""
        frame, graph = self.inputs, self.inputs.graph
        if frame.tables:
            return add_tables(frame.store, kind, rotation, frame.positions)
        columns = graph.op("Unsqueeze", frame.positions, graph.ints(-1), name="rope_columns")
        return add_angles(frame.store, kind, rotation, columns)

    def attend(self, heads: Heads) -> Value:
        """See Profile."""
        frame, block = self.inputs, heads.block
        inputs = (heads.q, heads.k, heads.v, self._mask(block.window), *heads.past)
        outputs = (f"layer_{heads.layer}_attention", *heads.present)
        sizes: dict[str, Any] = {
            "q_num_heads": block.num_heads,
            "kv_num_heads": block.num_kv_heads,
            "scale": block.scale,
        }
        return frame.graph.ops("Attention", inputs, outputs, is_causal=0, **sizes)[0]

    def _mask(self, window: int | None) -> Value:
        """(b, 1, s, t) bool: what each token sees. A token always sees itself, so that padding stays finite."""
        if window not in self._masks:
            graph, (rows, columns) = self.inputs.graph, _indices(self.inputs)
            real = graph.op(
                "Unsqueeze",
                graph.cast(self.inputs.mask, "bool", name="mask_real"),
                graph.ints(1, 2),
                name="mask_real",
            )
            real = graph.op(
                "Or", real, graph.op("Equal", rows, columns, name="mask_self"), name="mask_real"
            )
            seen = graph.op("LessOrEqual", columns, rows, name="mask_causal")
            if window is not None:
                distance = graph.op("Sub", rows, columns, name="mask_distance")
                near = graph.op("Less", distance, graph.scalar(window), name="mask_window")
                seen = graph.op("And", seen, near, name="mask_window")
            self._masks[window] = graph.op("And", real, seen, name="mask")
        return self._masks[window]


def _indices(inputs: Inputs) -> tuple[Value, Value]:
    """Places in the sequence, past included: of the new tokens (s, 1), of all tokens (1, t)."""
    graph = inputs.graph
    new = graph.op(
        "Gather",
        graph.op("Shape", inputs.ids, name="new_shape"),
        graph.scalar(1),
        name="new",
        axis=0,
    )
    total = graph.op(
        "Gather",
        graph.op("Shape", inputs.mask, name="mask_shape"),
        graph.scalar(1),
        name="total",
        axis=0,
    )
    every = graph.op("Range", graph.scalar(0), total, graph.scalar(1), name="place")
    past = graph.op("Sub", total, new, name="past")
    own = graph.op("Range", past, total, graph.scalar(1), name="place_new")
    return graph.op("Unsqueeze", own, graph.ints(1), name="place_row"), graph.op(
        "Unsqueeze", every, graph.ints(0), name="place_column"
    )


def _check(_stack: Stack) -> None:
    """Every size will do."""


PROFILE = ProfileKind("standard", Standard, _check, {"": 23}, 11, shares_buffer=False, flat=True)
