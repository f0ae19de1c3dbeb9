"""The rotary numbers of a finished graph, read back from its initializers.

A table is read as what it does: its second row gives each pair's angle and the magnitude, and every further row must turn
by that angle once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_onnx.carry import PARTS, initializer_name
from ropeconv.rope.spec import Frequencies

Array = NDArray[np.float64]
CHUNK = 1 << 14  # rows at a time
# Rounding of one row: of cos and sin, and of the float32 angle, which grows with the position.
SLACK = {"float32": 1e-6, "float16": 2e-3}
ANGLE_ULP = 2.5e-7


@dataclass(frozen=True)
class Read:
    """frequencies: layer type -> numbers, of those that rotate. rows: of the shortest table, None without. problems: lines."""

    frequencies: dict[str, Frequencies]
    rows: int | None
    problems: list[str]


def read_rotations(arrays: Mapping[str, NDArray[Any]]) -> Read:
    """What every layer type of the graph rotates by."""
    layers = sorted({name.split(".")[1] for name in arrays if name.startswith("rope.")})
    read = Read({}, None, [])
    for layer in layers:
        parts = {
            part: arrays[initializer_name(layer, part)]
            for part in PARTS
            if initializer_name(layer, part) in arrays
        }
        if "cos" in parts and "sin" in parts:
            read = _read_tables(layer, parts, read)
        elif "inv_freq" in parts:
            read.frequencies[layer] = _read_angles(parts)
        else:
            read.problems.append(f"rotary embedding of {layer} is neither a table nor frequencies")
    return read


def _read_angles(parts: Mapping[str, NDArray[Any]]) -> Frequencies:
    inv_freq = np.asarray(parts["inv_freq"], np.float64)
    long = np.asarray(parts["long_inv_freq"], np.float64) if "long_inv_freq" in parts else None
    magnitude = float(parts["magnitude"]) if "magnitude" in parts else 1.0
    return Frequencies(
        inv_freq, inv_freq, magnitude, long, int(parts["switch"]) if long is not None else None
    )


def _read_tables(layer: str, parts: Mapping[str, NDArray[Any]], read: Read) -> Read:
    cos, sin = parts["cos"], parts["sin"]
    switch = int(parts["switch"]) if "switch" in parts else None
    context = len(cos) if switch is None else _long_rows(len(cos), switch)
    starts = (
        [(0, len(cos))]
        if switch is None
        else [(0, len(cos) - context), (len(cos) - context, len(cos))]
    )
    tables = [_read_table(cos[start:stop], sin[start:stop]) for start, stop in starts]
    problems = [*read.problems, *(f"{layer}: {line}" for *_, lines in tables for line in lines)]
    (inv_freq, magnitude, _), *more = tables
    long = more[0][0] if more else None
    found = Frequencies(inv_freq, inv_freq, magnitude, long, switch)
    if more and not np.isclose(more[0][1], magnitude, rtol=1e-6):
        problems.append(
            f"{layer}: the long table's magnitude is {more[0][1]:.9g}, the short one's {magnitude:.9g}"
        )
    rows = context if read.rows is None else min(read.rows, context)
    return Read(read.frequencies | {layer: found}, rows, problems)


def _long_rows(rows: int, switch: int) -> int:
    """Rows of the long table: all but the short one's, which reaches the switch, or the context when that is shorter."""
    return rows - switch if rows >= 2 * switch else rows // 2


def _read_table(cos: NDArray[Any], sin: NDArray[Any]) -> tuple[Array, float, list[str]]:
    """((d/2,) radians a token, magnitude, problems) of one table (rows, d/2)."""
    first = cos[1].astype(np.float64) + 1j * sin[1].astype(np.float64)
    inv_freq, magnitude = np.angle(first), float(np.abs(first).mean())
    slack, lines = SLACK[cos.dtype.name], []
    for start, value in _turns(cos, sin, magnitude):
        places = np.arange(start, start + len(value))[:, None]
        off = (
            np.abs(value - np.exp(1j * inv_freq))
            - slack
            - ANGLE_ULP * (places + 1) * np.maximum(np.abs(inv_freq), 1e-9)
        )
        worst = np.unravel_index(int(np.nanargmax(np.where(np.isnan(off), np.inf, off))), off.shape)
        if not off[worst] <= 0:
            text = (
                f"table row {start + int(worst[0])} does not turn pair {int(worst[1])} by one step"
            )
            return inv_freq, magnitude, [text]
    if (
        np.abs(cos[0].astype(np.float64) - magnitude).max() > slack * max(1.0, magnitude)
        or np.abs(sin[0]).max() > slack
    ):
        lines.append("table row 0 is not the rotation by nothing")
    return inv_freq, magnitude, lines


def _turns(
    cos: NDArray[Any], sin: NDArray[Any], magnitude: float
) -> Iterator[tuple[int, NDArray[np.complex128]]]:
    """(row, e^(i angle) from each row to the next), by slabs of rows."""
    for start in range(0, len(cos) - 1, CHUNK):
        stop = min(len(cos), start + CHUNK + 1)
        z = (
            cos[start:stop].astype(np.float64) + 1j * sin[start:stop].astype(np.float64)
        ) / magnitude
        yield start, np.asarray(z[1:] * np.conj(z[:-1]), np.complex128)
