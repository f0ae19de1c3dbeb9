"""How a graph carries the rotary embedding: cos and sin up to the target context, or frequencies and angles in the graph.

Numbers are rounded where transformers rounds: float32 frequency, float32 position times frequency, float32 cos and sin,
times the magnitude. LongRoPE takes its long table for every token once the largest position reaches the switch: tables lie
one after the other and the positions are shifted, frequencies are chosen by Where; never an If.
Shape letters: d rotary_dim, t tokens = batch x sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ropeconv.errors import CannotExpress
from ropeconv.model import Model
from ropeconv.rope.build import find_kind
from ropeconv.rope.single import single_precision
from ropeconv.rope.solve import solve
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
        return (
            self.context
            if self.long is None
            else min(self.switch or 0, self.context) + self.context
        )


@dataclass(frozen=True)
class Encoding:
    """What the graph will hold. rotations: layer type -> numbers, None = the layer does not rotate."""

    rotations: Mapping[str, Rotation | None]
    carried: Carried


def encode(model: Model, bake: str = "auto") -> Encoding:
    """The encoding of the model's rotary embedding. bake: "auto", "metadata" or "tables".

    Raises CannotExpress for kinds whose frequencies follow the running length.
    """
    rotations = {
        layer: None if rope is None else _rotation(rope) for layer, rope in model.ropes.items()
    }
    if bake != "tables":
        return Encoding(
            rotations,
            Carried("metadata", "frequencies, angles in the graph: exact at every length"),
        )
    size = sum(8 * r.rows * len(r.inv_freq) for r in rotations.values() if r is not None)
    return Encoding(
        rotations,
        Carried("tables", f"cos and sin of every position ({size / 1e6:,.1f} MB in float32)"),
    )


def _rotation(rope: Rope) -> Rotation:
    _refuse_running_length(rope)
    solved, (short, long) = solve(rope), single_precision(rope)
    if long is None or np.array_equal(short, long):
        return Rotation(short, solved.attention_factor, rope.context)
    return Rotation(short, solved.attention_factor, rope.context, long, solved.switch_context)


def _refuse_running_length(rope: Rope) -> None:
    kind = find_kind(rope.kind)
    if kind.static:
        return
    advice = (
        "take a kind with a fixed table" if kind.frozen_advice is None else kind.frozen_advice(rope)
    )
    raise CannotExpress(
        f"{kind.name} scaling changes with the running length and a graph holds one set of "
        f"frequencies; {advice}"
    )


def cos_sin(rotation: Rotation) -> tuple[Single, Single]:
    """(rows, d/2) float32 tables, magnitude included."""
    parts = [(rotation.inv_freq, rotation.context)]
    if rotation.long is not None:
        parts = [
            (rotation.inv_freq, rotation.rows - rotation.context),
            (rotation.long, rotation.context),
        ]
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
