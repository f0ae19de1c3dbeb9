"""How a graph carries the rotary embedding: cos and sin up to the target context, or frequencies
and angles in the graph.

Numbers are rounded where transformers rounds: float32 frequency, float32 position times frequency,
float32 cos and sin, times the magnitude. LongRoPE's second table begins behind the first.
Shape letters: d rotary_dim.
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


def initializer_name(kind: str, part: str) -> str:
    """The initializer that holds one of PARTS for a layer kind."""
    return f"rope.{kind}.{part}"


LARGEST = 8 << 30  # bytes of tables; 16 M positions of 64 pairs


@dataclass(frozen=True)
class Rotation:
    """One layer kind's numbers: (d/2,) radians a token, float32.

    long: past `switch` tokens. context: L', rows of a table.
    """

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
    """What the graph will hold. rotations: layer kind -> numbers; None: the layer stands still."""

    rotations: Mapping[str, Rotation | None]
    carried: Carried


def encode(model: Model, bake: str = "auto") -> Encoding:
    """The encoding of the model's rotary embedding. bake: "auto", "metadata" or "tables".

    Raises CannotExpress for kinds whose frequencies follow the running length.
    """
    ropes = model.ropes.items()
    rotations = {kind: None if rope is None else _rotation(rope) for kind, rope in ropes}
    if bake != "tables":
        why = "frequencies, angles in the graph: exact at every length"
        return Encoding(rotations, Carried("metadata", why))
    size = sum(8 * r.rows * len(r.inv_freq) for r in rotations.values() if r is not None)
    if size > LARGEST:
        raise CannotExpress(
            f"cos and sin of {model.main_rope.context} positions would take {size / 1e9:,.0f} GB; "
            f"is the config's length meant? Take --bake metadata, or a shorter context"
        )
    why = f"cos and sin of every position ({size / 1e6:,.1f} MB in float32)"
    return Encoding(rotations, Carried("tables", why))


def _rotation(rope: Rope) -> Rotation:
    _refuse_running_length(rope)
    solved = solve(rope)
    short, long = single_precision(rope)
    if long is None or np.array_equal(short, long):
        return Rotation(short, solved.attention_factor, rope.context)
    return Rotation(short, solved.attention_factor, rope.context, long, solved.switch_context)


def _refuse_running_length(rope: Rope) -> None:
    kind = find_kind(rope.kind)
    if kind.static:
        return
    advise = kind.frozen_advice
    advice = "take a kind with a fixed table" if advise is None else advise(rope)
    raise CannotExpress(
        f"{kind.name} scaling changes with the running length and a graph holds one set of "
        f"frequencies; {advice}"
    )


def cos_sin(rotation: Rotation) -> tuple[Single, Single]:
    """(rows, d/2) float32 tables, magnitude included; the long one after the short one."""
    cos, sin = (np.empty((rotation.rows, len(rotation.inv_freq)), np.float32) for _ in range(2))
    short = rotation.rows if rotation.long is None else rotation.rows - rotation.context
    _fill(cos[:short], sin[:short], rotation.inv_freq, rotation.magnitude)
    if rotation.long is not None:
        _fill(cos[short:], sin[short:], rotation.long, rotation.magnitude)
    return cos, sin


def _fill(cos: Single, sin: Single, inv_freq: Single, magnitude: float) -> None:
    """Rows of every position from 0 on."""
    m = np.float32(magnitude)
    for start in range(0, len(cos), CHUNK):
        stop = min(len(cos), start + CHUNK)
        angles = np.arange(start, stop, dtype=np.float32)[:, None] * inv_freq
        np.multiply(np.cos(angles), m, out=cos[start:stop])
        np.multiply(np.sin(angles), m, out=sin[start:stop])
