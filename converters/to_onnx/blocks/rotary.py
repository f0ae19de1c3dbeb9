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
    store: Store, layer_type: str, rotation: Rotation, positions: Value
) -> tuple[Value, Value, Value]:
    """(cos, sin, positions): tables (rows, d/2), and int64 (b, s) rows of them. A position past L' is past the table too."""
    graph = store.graph
    for part, table in zip(("cos", "sin"), cos_sin(rotation), strict=True):
        store.table(initializer_name(layer_type, part), table.astype(store.kind.dtype))
    cos, sin = (initializer_name(layer_type, part) for part in ("cos", "sin"))
    if rotation.long is None:
        return cos, sin, positions
    switch = graph.named(initializer_name(layer_type, "switch"), np.int64(rotation.switch or 0))
    long = _is_long(graph, positions, switch)
    shift = graph.op(
        "Where",
        long,
        graph.scalar(rotation.rows - rotation.context),
        graph.scalar(0),
        name="rope_shift",
    )
    rows = graph.op("Add", positions, shift, name="rope_rows")
    below = graph.op(
        "Less", positions, graph.scalar(0), name="rope_below"
    )  # the shift would bring it into the short table
    return cos, sin, graph.op("Where", below, graph.scalar(rotation.rows), rows, name="rope_rows")


def add_angles(
    store: Store, layer_type: str, rotation: Rotation, positions: Value
) -> tuple[Value, Value]:
    """(cos, sin): (..., d/2) in the type of the activations, computed in float32 from the positions (..., 1)."""
    graph = store.graph
    inv_freq = graph.named(initializer_name(layer_type, "inv_freq"), rotation.inv_freq)
    if rotation.long is not None:
        switch = graph.named(initializer_name(layer_type, "switch"), np.int64(rotation.switch or 0))
        long = graph.named(initializer_name(layer_type, "long_inv_freq"), rotation.long)
        inv_freq = graph.op(
            "Where", _is_long(graph, positions, switch), long, inv_freq, name="rope_inv_freq"
        )
    angles = graph.op(
        "Mul", graph.cast(positions, "float32", name="rope_position"), inv_freq, name="rope_angles"
    )
    found = []
    for kind in ("Cos", "Sin"):
        value = graph.op(kind, angles, name=f"rope_{kind.lower()}")
        if not isclose(rotation.magnitude, 1.0, rel_tol=1e-9):
            magnitude = graph.named(
                initializer_name(layer_type, "magnitude"), np.float32(rotation.magnitude)
            )
            value = graph.op("Mul", value, magnitude, name=f"rope_{kind.lower()}")
        half = store.kind.dtype != "float32"
        found.append(
            graph.cast(value, store.kind.dtype, name=f"rope_{kind.lower()}") if half else value
        )
    return found[0], found[1]


def _is_long(graph: Graph, positions: Value, switch: Value) -> Value:
    """transformers' rule: the largest position of the call, plus one, is past the switch."""
    last = graph.op("ReduceMax", positions, name="rope_last", keepdims=0)
    return graph.op("GreaterOrEqual", last, switch, name="rope_long")
