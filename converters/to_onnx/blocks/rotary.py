"""The rotary embedding as nodes: rows of tables, or angles computed from positions.

LongRoPE takes its long table for every token once the largest position reaches the switch: tables
lie one after the other and the positions are shifted, frequencies are chosen by Where; never an If.
Shape letters: d rotary_dim, b batch, s tokens.
"""

from __future__ import annotations

from math import isclose

import numpy as np

from converters.to_onnx.carry import Rotation, cos_sin, initializer_name
from converters.to_onnx.graph import Graph, Value
from converters.to_onnx.weights import Store


def add_tables(
    store: Store, kind: str, rotation: Rotation, positions: Value
) -> tuple[Value, Value, Value]:
    """(cos, sin, positions): tables (rows, d/2), and int64 (b, s) rows of them.

    A position past L' is past the table too.
    """
    graph = store.graph
    cos, sin = (initializer_name(kind, part) for part in ("cos", "sin"))
    for name, table in zip((cos, sin), cos_sin(rotation), strict=True):
        store.table(name, table.astype(store.kind.dtype))
    if rotation.long is None:
        return cos, sin, positions
    switch = graph.named(initializer_name(kind, "switch"), np.int64(rotation.switch or 0))
    long = _is_long(graph, positions, switch)
    first = graph.scalar(rotation.rows - rotation.context)
    shift = graph.op("Where", long, first, graph.scalar(0), name="rope_shift")
    rows = graph.op("Add", positions, shift, name="rope_rows")
    # the shift would bring a negative position into the short table
    below = graph.op("Less", positions, graph.scalar(0), name="rope_below")
    outside = graph.scalar(rotation.rows)
    return cos, sin, graph.op("Where", below, outside, rows, name="rope_rows")


def add_angles(
    store: Store, kind: str, rotation: Rotation, positions: Value
) -> tuple[Value, Value]:
    """(cos, sin): (..., d/2) in the type of the activations.

    Computed in float32 from the positions (..., 1).
    """
    graph = store.graph
    inv_freq = _frequencies(graph, kind, rotation, positions)
    places = graph.cast(positions, "float32", name="rope_position")
    angles = graph.op("Mul", places, inv_freq, name="rope_angles")
    cos, sin = (_of_angles(store, kind, rotation, angles, function) for function in ("Cos", "Sin"))
    return cos, sin


def _frequencies(graph: Graph, kind: str, rotation: Rotation, positions: Value) -> Value:
    """(d/2,) radians a token, LongRoPE's second ones past its switch."""
    inv_freq = graph.named(initializer_name(kind, "inv_freq"), rotation.inv_freq)
    if rotation.long is None:
        return inv_freq
    switch = graph.named(initializer_name(kind, "switch"), np.int64(rotation.switch or 0))
    long = graph.named(initializer_name(kind, "long_inv_freq"), rotation.long)
    is_long = _is_long(graph, positions, switch)
    return graph.op("Where", is_long, long, inv_freq, name="rope_inv_freq")


def _of_angles(store: Store, kind: str, rotation: Rotation, angles: Value, function: str) -> Value:
    """The angles' cosine or sine, times the magnitude."""
    graph, name = store.graph, f"rope_{function.lower()}"
    value = graph.op(function, angles, name=name)
    if not isclose(rotation.magnitude, 1.0, rel_tol=1e-9):
        factor = np.float32(rotation.magnitude)
        magnitude = graph.named(initializer_name(kind, "magnitude"), factor)
        value = graph.op("Mul", value, magnitude, name=name)
    if store.kind.dtype == "float32":
        return value
    return graph.cast(value, store.kind.dtype, name=name)


def _is_long(graph: Graph, positions: Value, switch: Value) -> Value:
    """transformers' rule: the largest position of the call, plus one, is past the switch."""
    last = graph.op("ReduceMax", positions, name="rope_last", keepdims=0)
    return graph.op("GreaterOrEqual", last, switch, name="rope_long")
