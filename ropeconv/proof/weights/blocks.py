"""How far a tensor in blocks may lie from its source.

Judged over the tensor by two numbers: relative RMS error |q - w| / |w|, and the least-squares slope
<q, w> / <w, w>, which a wrong scale moves by as much as it is wrong, long before the RMS error
notices. And by the RMS error of every single block, so that no row, head or block can be another's,
negated or lost: a tensor's own error hides one of them among thousands. Shape letters: n rows, c
columns, b blocks of a row, s values of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.gates import ANYWHERE, SYMMETRIC, BlockLimits, Steps

NEGLIGIBLE = 1e-6  # share of the mean power of stretches
UNDERFLOW = 2.0**-25  # half of the smallest float16
ROUNDING = 2.0**-11  # of a number to float16
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Slab:
    """Some rows of a tensor, the artefact's and the source's (n, ...), in blocks of `size`."""

    found: NDArray[Any]
    source: NDArray[Any]
    size: int

    @cached_property
    def _source(self) -> NDArray[np.float32]:
        return self._cut(self.source)

    @cached_property
    def _found(self) -> NDArray[np.float32]:
        return self._cut(self.found)

    def _cut(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """(n, b, s); the last block of a row is filled up with zeros."""
        flat = np.asarray(rows, np.float32).reshape(-1, rows.shape[-1])
        missing = -flat.shape[1] % self.size
        padded = np.pad(flat, ((0, 0), (0, missing))) if missing else flat
        return padded.reshape(len(flat), -1, self.size)

    @cached_property
    def errors(self) -> Numbers:
        """(n, b) sums of squares of what the numbers are off by."""
        difference = self._found - self._source
        return _dot(difference, difference)

    @cached_property
    def powers(self) -> Numbers:
        """(n, b) sums of squares of the source's numbers."""
        return _dot(self._source, self._source)

    @cached_property
    def products(self) -> Numbers:
        """(n, b) sums of the products of both."""
        return _dot(self._found, self._source)

    @cached_property
    def ends(self) -> tuple[Numbers, Numbers]:
        """(n, b) smallest and largest of the source's numbers."""
        return (
            self._source.min(axis=-1).astype(np.float64),
            self._source.max(axis=-1).astype(np.float64),
        )

    def place(self, row: int, first: int, last: int, start: int) -> str:
        """Where columns first to last of a flat row lie in the whole tensor."""
        at = np.unravel_index(row, self.source.shape[:-1])
        index = (start + int(at[0]), *map(int, at[1:]))
        return ", ".join(map(str, (*index, f"{first}:{min(last, self.source.shape[-1])}")))


def _dot(a: NDArray[np.float32], b: NDArray[np.float32]) -> Numbers:
    sums: NDArray[np.float32] = np.einsum("nbs,nbs->nb", a, b)
    return sums.astype(np.float64)


@dataclass
class Sums:
    """Over a tensor: |q - w|^2, |w|^2 and <q, w>."""

    error: float = 0.0
    power: float = 0.0
    product: float = 0.0

    def add(self, slab: Slab) -> None:
        """Count some more rows."""
        self.error += float(slab.errors.sum())
        self.power += float(slab.powers.sum())
        self.product += float(slab.products.sum())

    @property
    def rms(self) -> float:
        """Relative RMS error."""
        return float(np.sqrt(self.error / self.power))


def lost_stretch(what: str, start: int, slab: Slab, limit: BlockLimits) -> str | None:
    """The first stretch that is further off, for its own size, than its type rounds. start: the
    first row's number.

    A stretch whose numbers are a thousandth of its neighbours' is measured against theirs: a type's
    scales reach no further down.
    """
    count = max(1, limit.block // slab.size)
    starts = np.arange(0, slab.errors.shape[1], count)
    errors, powers = (
        np.add.reduceat(values, starts, axis=1) for values in (slab.errors, slab.powers)
    )
    floor = NEGLIGIBLE * powers.mean()
    wrong = ~(errors <= limit.worst**2 * np.maximum(powers, floor))
    if not wrong.any():
        return None
    row, number = (int(i) for i in np.argwhere(wrong)[0])
    width = count * slab.size
    place = slab.place(row, number * width, (number + 1) * width, start)
    power = max(float(powers[row, number]), float(floor))
    off = float(np.sqrt(errors[row, number] / power)) if power else float("inf")
    return (
        f"{what} [{place}] is off by {off:.0%} RMS, no block of it by more than "
        f"{limit.worst:.0%}; {int(wrong.sum())} blocks in its rows are"
    )


def lost_block(what: str, start: int, slab: Slab, limit: BlockLimits) -> str | None:
    """The first block that is further off than the steps of its numbers. start: the first row's
    number.
    """
    if limit.steps is None:
        return None
    allowed = allowed_errors(slab, limit.steps)
    errors = np.sqrt(slab.errors / slab.size)
    wrong = ~(errors <= allowed)
    if not wrong.any():
        return None
    row, number = (int(i) for i in np.argwhere(wrong)[0])
    place = slab.place(row, number * slab.size, (number + 1) * slab.size, start)
    return (
        f"{what} [{place}] is off by {errors[row, number]:.2g} RMS, its block rounds within "
        f"{allowed[row, number]:.2g}; {int(wrong.sum())} blocks in its rows are"
    )


def allowed_errors(slab: Slab, steps: Steps) -> Numbers:
    """(n, b) RMS errors that the rounding of codes, of scales, and their underflow explain."""
    low, high = slab.ends
    largest = np.maximum(np.abs(low), np.abs(high))
    if steps.ends == SYMMETRIC:
        reach = 2 * largest
    elif steps.ends == ANYWHERE:
        reach = high - low
    else:
        reach = np.maximum(high, 0) - np.minimum(low, 0)
    step = reach / steps.levels
    allowed = steps.rms * step
    if steps.shared:
        count = steps.group // steps.block
        starts = np.arange(0, step.shape[1], count)
        shared = np.maximum.reduceat(step, starts, axis=1)
        allowed += steps.shared * np.repeat(shared, count, axis=1)[:, : step.shape[1]]
    if steps.reach:
        allowed += ROUNDING * largest + UNDERFLOW * steps.reach
    return allowed


def whole_tensor(what: str, dtype: str, sums: Sums, limit: BlockLimits) -> str | None:
    """The limits that hold over a tensor."""
    if not sums.rms <= limit.rms:
        return f"{what} is off by {sums.rms:.2%} RMS, {dtype} is good for {limit.rms:.0%}"
    slope = sums.product / sums.power - 1.0
    slope += sums.rms**2 if limit.projected else 0.0
    if not limit.slope_low <= slope <= limit.slope_high:
        allowed = f"{limit.slope_low:+.2%} to {limit.slope_high:+.2%}"
        return f"{what} is {slope:+.2%} too large on the whole, {dtype} rounds within {allowed}"
    return None
