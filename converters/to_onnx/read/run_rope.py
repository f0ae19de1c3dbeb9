"""The rotary numbers of a finished graph, read back from its initializers.

Tables are held against the frequencies that config.json beside them states, at every row, to the
rounding of their own type; from half precision no frequency could be told as exactly as that. A
table that is another is read as what it does: its second row gives each pair's angle and the
magnitude, and every further row must turn by that angle once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_onnx.carry import PARTS, initializer_name
from ropeconv.rope.single import single_precision
from ropeconv.rope.solve import solve
from ropeconv.rope.spec import Frequencies, Rope

Array = NDArray[np.float64]
Single = NDArray[np.float32]
CHUNK = 1 << 14  # rows at a time
# Rounding of one row: of cos and sin, and of the float32 angle, which grows with the position.
SLACK = {"float32": 1e-6, "float16": 2e-3}
ANGLE_ULP = 2.5e-7
# Rounding of a number to its type, and what functions of libraries differ by.
ROUNDING = {"float32": 1.2e-7, "float16": 4.9e-4}
LIBRARIES = 3e-7


@dataclass(frozen=True)
class Read:
    """frequencies: layer kind -> numbers, of those that rotate.

    rows: of the shortest table, None without one. problems: one line each.
    """

    frequencies: dict[str, Frequencies]
    rows: int | None
    problems: list[str]


@dataclass(frozen=True)
class Table:
    """What one table does: (d/2,) radians a token and the magnitude; problems: one line each."""

    inv_freq: Array
    magnitude: float
    problems: Sequence[str]


def read_rotations(
    arrays: Mapping[str, NDArray[Any]], stated: Mapping[str, Rope | None] | None = None
) -> Read:
    """What every layer kind of the graph rotates by. stated: layer kind -> what is said of it."""
    kinds = sorted({name.split(".")[1] for name in arrays if name.startswith("rope.")})
    read = Read({}, None, [])
    for kind in kinds:
        names = {part: initializer_name(kind, part) for part in PARTS}
        parts = {part: arrays[name] for part, name in names.items() if name in arrays}
        if "cos" in parts and "sin" in parts:
            read = _read_tables(kind, parts, read, (stated or {}).get(kind))
        elif "inv_freq" in parts:
            read.frequencies[kind] = _read_angles(parts)
        else:
            read.problems.append(f"rotary embedding of {kind} is neither a table nor frequencies")
    return read


def _read_angles(parts: Mapping[str, NDArray[Any]]) -> Frequencies:
    inv_freq = np.asarray(parts["inv_freq"], np.float64)
    magnitude = float(parts["magnitude"]) if "magnitude" in parts else 1.0
    if "long_inv_freq" not in parts:
        return Frequencies(inv_freq, inv_freq, magnitude)
    long = np.asarray(parts["long_inv_freq"], np.float64)
    return Frequencies(inv_freq, inv_freq, magnitude, long, int(parts["switch"]))


def _read_tables(
    kind: str, parts: Mapping[str, NDArray[Any]], read: Read, stated: Rope | None
) -> Read:
    """`read` with what the tables of a layer kind do."""
    cos, sin = parts["cos"], parts["sin"]
    switch = int(parts["switch"]) if "switch" in parts else None
    context = len(cos) if switch is None else _long_rows(len(cos), switch)
    cuts = [slice(len(cos) - context, len(cos))]
    if switch is not None:
        cuts.insert(0, slice(0, len(cos) - context))
    said = [] if stated is None else _stated(stated)
    first, *more = (
        _read_table(cos[cut], sin[cut], said[number] if number < len(said) else None)
        for number, cut in enumerate(cuts)
    )
    lines = [line for table in (first, *more) for line in table.problems]
    lines += [
        f"the long table's magnitude is {long.magnitude:.9g}, the short one's {first.magnitude:.9g}"
        for long in more
        if not np.isclose(long.magnitude, first.magnitude, rtol=1e-6)
    ]
    long = more[0].inv_freq if more else None
    found = Frequencies(first.inv_freq, first.inv_freq, first.magnitude, long, switch)
    rows = context if read.rows is None else min(read.rows, context)
    problems = [*read.problems, *(f"{kind}: {line}" for line in lines)]
    return Read(read.frequencies | {kind: found}, rows, problems)


def _long_rows(rows: int, switch: int) -> int:
    """Rows of the long table: all but the short one's.

    That reaches the switch, or the context when it is shorter.
    """
    return rows - switch if rows >= 2 * switch else rows // 2


def _stated(rope: Rope) -> list[tuple[Single, float]]:
    """(float32 radians a token, magnitude) of each table, as transformers rounds them."""
    magnitude = solve(rope).attention_factor
    return [(table, magnitude) for table in single_precision(rope) if table is not None]


def _read_table(cos: NDArray[Any], sin: NDArray[Any], stated: tuple[Single, float] | None) -> Table:
    """What a table (rows, d/2) does."""
    if stated is None or stated[0].shape != cos.shape[1:] or cos.shape != sin.shape:
        return _measured(cos, sin)
    inv_freq, magnitude = stated
    wrong = _wrong_rows(cos, sin, inv_freq, magnitude)
    if 2 * len(wrong) > len(cos):
        return _measured(cos, sin)
    lines = []
    if wrong:
        line = f"table row {wrong[0]} is not {wrong[0]} steps of its frequencies"
        lines = [f"{line} ({len(wrong)} of {len(cos)} rows are not)"]
    return Table(inv_freq.astype(np.float64), magnitude, lines)


def _wrong_rows(
    cos: NDArray[Any], sin: NDArray[Any], inv_freq: Single, magnitude: float
) -> list[int]:
    """The rows that are further off than their type rounds."""
    rounding = ROUNDING[cos.dtype.name]
    found: list[int] = []
    for start in range(0, len(cos), CHUNK):
        rows = slice(start, min(len(cos), start + CHUNK))
        angles = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] * inv_freq
        off = np.zeros(len(angles), bool)
        for table, function in ((cos, np.cos), (sin, np.sin)):
            wanted = function(angles) * np.float32(magnitude)
            slack = rounding * np.abs(wanted) + LIBRARIES * max(1.0, magnitude)
            off |= ~(np.abs(table[rows].astype(np.float32) - wanted) <= slack).all(axis=1)
        found += (start + np.flatnonzero(off)).tolist()
    return found


def _measured(cos: NDArray[Any], sin: NDArray[Any]) -> Table:
    """What a table (rows, d/2) does, by its second row."""
    step = _complex(cos[1], sin[1])
    inv_freq = np.angle(step)
    magnitude = float(np.abs(step).mean())
    slack = SLACK[cos.dtype.name]
    for start, value in _turns(cos, sin, magnitude):
        places = np.arange(start, start + len(value))[:, None]
        grown = ANGLE_ULP * (places + 1) * np.maximum(np.abs(inv_freq), 1e-9)
        off = np.abs(value - np.exp(1j * inv_freq)) - slack - grown
        worst = np.unravel_index(int(np.nanargmax(np.where(np.isnan(off), np.inf, off))), off.shape)
        if not off[worst] <= 0:
            row, pair = start + int(worst[0]), int(worst[1])
            line = f"table row {row} does not turn pair {pair} by one step"
            return Table(inv_freq, magnitude, [line])
    stands = np.abs(cos[0].astype(np.float64) - magnitude).max() <= slack * max(1.0, magnitude)
    if stands and np.abs(sin[0]).max() <= slack:
        return Table(inv_freq, magnitude, [])
    return Table(inv_freq, magnitude, ["table row 0 is not the rotation by nothing"])


def _turns(
    cos: NDArray[Any], sin: NDArray[Any], magnitude: float
) -> Iterator[tuple[int, NDArray[np.complex128]]]:
    """(row, e^(i angle) from each row to the next), by slabs of rows."""
    for start in range(0, len(cos) - 1, CHUNK):
        stop = min(len(cos), start + CHUNK + 1)
        z = _complex(cos[start:stop], sin[start:stop]) / magnitude
        yield start, np.asarray(z[1:] * np.conj(z[:-1]), np.complex128)


def _complex(cos: NDArray[Any], sin: NDArray[Any]) -> NDArray[np.complex128]:
    return np.asarray(cos.astype(np.float64) + 1j * sin.astype(np.float64), np.complex128)
