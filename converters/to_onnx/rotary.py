"""How a graph carries the rotary embedding: cos and sin up to the target context, or frequencies and angles in the graph.

Numbers are rounded where transformers rounds: float32 frequency, float32 position times frequency, float32 cos and sin,
times the magnitude. LongRoPE takes its long table for every token once the largest position reaches the switch: tables lie
one after the other and the positions are shifted, frequencies are chosen by Where; never an If.
Shape letters: d rotary_dim, t tokens = batch x sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose

import numpy as np
from numpy.typing import NDArray

from converters.to_onnx.graph import Graph, Value
from converters.to_onnx.weights import Store
from ropeconv.errors import CannotExpress
from ropeconv.model import Model
from ropeconv.rope.single import single_precision
from ropeconv.rope.spec import Rope
from ropeconv.target import Carried

Single = NDArray[np.float32]
CHUNK = 1 << 14  # positions of a table made at a time
PARTS = ("cos", "sin", "inv_freq", "long_inv_freq", "magnitude", "switch")


def initializer_name(layer_type: str, part: str) -> str:
    """The initializer that holds one of PARTS for a layer type."""
    return f"rope.{layer_type}.{part}"


@dataclass(frozen=True)
class Rotation:
    """One layer type's numbers: (d/2,) radians a token, float32. long: past `switch` tokens. context: L', rows of a table."""

    inv_freq: Single
    magnitude: float
    context: int
    long: Single | None = None
    switch: int | None = None

    @property
    def rows(self) -> int:
        """Rows of its cos table, the long one's after the short one's."""
        return self.context if self.long is None else min(self.switch or 0, self.context) + self.context


@dataclass(frozen=True)
class Encoding:
    """What the graph will hold. rotations: layer type -> numbers, None = the layer does not rotate."""

    rotations: Mapping[str, Rotation | None]
    carried: Carried


def encode(model: Model, bake: str = "auto") -> Encoding:
    """The encoding of the model's rotary embedding. bake: "auto", "metadata" or "tables".

    Raises CannotExpress for `dynamic`, whose frequencies follow the running length.
    """
    rotations = {layer: None if rope is None else _rotation(rope) for layer, rope in model.ropes.items()}
    if bake != "tables":
        return Encoding(rotations, Carried("metadata", "frequencies, angles in the graph: exact at every length"))
    size = sum(8 * r.rows * len(r.inv_freq) for r in rotations.values() if r is not None)
    return Encoding(rotations, Carried("tables", f"cos and sin of every position ({size / 1e6:,.1f} MB in float32)"))


def _rotation(rope: Rope) -> Rotation:
    _refuse_dynamic(rope)
    from ropeconv.rope.solve import solve

    solved, (short, long) = solve(rope), single_precision(rope)
    if long is None or np.array_equal(short, long):
        return Rotation(short, solved.attention_factor, rope.context)
    return Rotation(short, solved.attention_factor, rope.context, long, solved.switch_context)


def _refuse_dynamic(rope: Rope) -> None:
    if rope.kind != "dynamic":
        return
    s = float(rope.parameters.factor)
    length = f"{rope.original_context * s:g}"
    raise CannotExpress(
        f"dynamic scaling changes with the running length and a graph holds one set of frequencies; "
        f"freeze it at {length} tokens with --scaling ntk --factor {s * s - (s - 1):g} --context {length} "
        f"(and --on-existing replace where the config says dynamic)"
    )


def cos_sin(rotation: Rotation) -> tuple[Single, Single]:
    """(rows, d/2) float32 tables, magnitude included."""
    parts = [(rotation.inv_freq, rotation.context)]
    if rotation.long is not None:
        parts = [(rotation.inv_freq, rotation.rows - rotation.context), (rotation.long, rotation.context)]
    tables = [np.empty((rotation.rows, len(rotation.inv_freq)), np.float32) for _ in range(2)]
    m, row = np.float32(rotation.magnitude), 0
    for inv_freq, count in parts:
        for start in range(0, count, CHUNK):
            stop = min(count, start + CHUNK)
            angles = np.arange(start, stop, dtype=np.float32)[:, None] * inv_freq
            for table, function in zip(tables, (np.cos, np.sin), strict=True):
                np.multiply(function(angles), m, out=table[row + start : row + stop])
        row += count
    return tables[0], tables[1]


def add_tables(store: Store, layer_type: str, rotation: Rotation, positions: Value) -> tuple[Value, Value, Value]:
    """(cos, sin, positions): tables (rows, d/2), and int64 (b, s) rows of them. A position past L' is past the table too."""
    graph = store.graph
    for part, table in zip(("cos", "sin"), cos_sin(rotation), strict=True):
        store.table(initializer_name(layer_type, part), table.astype(store.kind.dtype))
    cos, sin = (initializer_name(layer_type, part) for part in ("cos", "sin"))
    if rotation.long is None:
        return cos, sin, positions
    switch = graph.named(initializer_name(layer_type, "switch"), np.int64(rotation.switch or 0))
    long = _is_long(graph, positions, switch)
    shift = graph.op("Where", long, graph.scalar(rotation.rows - rotation.context), graph.scalar(0), name="rope_shift")
    rows = graph.op("Add", positions, shift, name="rope_rows")
    below = graph.op("Less", positions, graph.scalar(0), name="rope_below")  # the shift would bring it into the short table
    return cos, sin, graph.op("Where", below, graph.scalar(rotation.rows), rows, name="rope_rows")


def add_angles(store: Store, layer_type: str, rotation: Rotation, positions: Value) -> tuple[Value, Value]:
    """(cos, sin): (..., d/2) in the type of the activations, computed in float32 from the positions (..., 1)."""
    graph = store.graph
    inv_freq = graph.named(initializer_name(layer_type, "inv_freq"), rotation.inv_freq)
    if rotation.long is not None:
        switch = graph.named(initializer_name(layer_type, "switch"), np.int64(rotation.switch or 0))
        long = graph.named(initializer_name(layer_type, "long_inv_freq"), rotation.long)
        inv_freq = graph.op("Where", _is_long(graph, positions, switch), long, inv_freq, name="rope_inv_freq")
    angles = graph.op("Mul", graph.cast(positions, "float32", name="rope_position"), inv_freq, name="rope_angles")
    found = []
    for kind in ("Cos", "Sin"):
        value = graph.op(kind, angles, name=f"rope_{kind.lower()}")
        if not isclose(rotation.magnitude, 1.0, rel_tol=1e-9):
            magnitude = graph.named(initializer_name(layer_type, "magnitude"), np.float32(rotation.magnitude))
            value = graph.op("Mul", value, magnitude, name=f"rope_{kind.lower()}")
        half = store.kind.dtype != "float32"
        found.append(graph.cast(value, store.kind.dtype, name=f"rope_{kind.lower()}") if half else value)
    return found[0], found[1]


def _is_long(graph: Graph, positions: Value, switch: Value) -> Value:
    """transformers' rule: the largest position of the call, plus one, is past the switch."""
    last = graph.op("ReduceMax", positions, name="rope_last", keepdims=0)
    return graph.op("GreaterOrEqual", last, switch, name="rope_long")
