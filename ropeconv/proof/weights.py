"""Rung: every tensor of the artefact against the source's, slab by slab, in Hugging Face's names
and order.

A float type must hold exactly the source's number rounded once. A block type is judged by two
numbers over the tensor: relative RMS error |q - w| / |w|, and the least-squares slope <q, w> / <w,
w>, which a wrong scale moves by as much as it is wrong, long before the RMS error notices. And by
the RMS error of every single block, so that no row, head or block can be another's, negated or
lost: a tensor's own error hides one of them among thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.arch.stack import Place
from ropeconv.gates import BlockLimits
from ropeconv.kit.float_types import FLOATS, ULP, numpy_dtype
from ropeconv.kit.slabs import cut
from ropeconv.model import Tensor

SLAB = 1 << 22  # values at a time
NEGLIGIBLE = 1e-6  # share of the mean power of blocks


@dataclass
class WeightReport:
    """findings: one line for each disagreement. exact: tensors that hold the source's numbers;
    blocks: type -> worst RMS.
    """

    findings: list[str] = field(default_factory=list)
    tensors: int = 0
    exact: int = 0
    blocks: dict[str, float] = field(default_factory=dict)


def compare_weights(
    artefact: Mapping[str, Tensor],
    source: Mapping[str, Tensor],
    weights: Mapping[str, Place],
    *,
    limits: Mapping[str, BlockLimits],
    progress: Callable[[int, int], None] | None = None,
) -> WeightReport:
    """weights: the names that the family's forward pass reads. limits: of the target's block types.

    progress: (done, total) in tensors.
    """
    report = WeightReport()
    for done, (name, place) in enumerate(weights.items(), 1):
        mine, theirs = artefact[name], source[name]
        report.tensors += 1
        if mine.dtype in FLOATS or mine.dtype == theirs.dtype:
            finding = _compare_exact(name, mine, theirs, offset=place.weight.offset)
            report.exact += finding is None
        else:
            finding = _compare_blocks(name, mine, theirs, limits, report=report)
        if finding is not None:
            report.findings.append(finding)
        if progress is not None:
            progress(done, len(weights))
    return report


def _slabs(mine: Tensor, theirs: Tensor) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
    """(first row, artefact's rows, source's rows): floats as stored, blocks as float32."""
    for start, stop in cut(mine.shape, values=SLAB):
        yield start, mine.rows(start, stop), theirs.rows(start, stop)


def _compare_exact(name: str, mine: Tensor, theirs: Tensor, *, offset: float) -> str | None:
    """None, or the first value that is not the source's rounded once to the artefact's type."""
    for start, stored, source in _slabs(mine, theirs):
        with np.errstate(over="ignore"):
            stored_as = numpy_dtype(mine.dtype if mine.dtype in FLOATS else "F32")
            expected = source.astype(np.float32).astype(stored_as).astype(np.float64)
        found = stored.astype(np.float64)
        # 1 + w is stored: one rounding at that size, undone by the view
        slack = ULP[mine.dtype] * (offset + np.abs(expected)) if offset else 0.0
        wrong = ~(np.abs(found - expected) <= slack)
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            count = int(wrong.sum())
            place = f"{name}[{', '.join(map(str, (start + at[0], *at[1:])))}]"
            text = (
                f"{place} is {found[at]:.9g} ({mine.dtype}), the source's "
                f"{float(source[at]):.9g} rounds to {expected[at]:.9g}"
            )
            return f"{text}; {count} of {wrong.size} values in its rows differ"
    return None


def _compare_blocks(
    name: str,
    mine: Tensor,
    theirs: Tensor,
    limits: Mapping[str, BlockLimits],
    *,
    report: WeightReport,
) -> str | None:
    if mine.dtype not in limits:
        return (
            f"{name} is {mine.dtype}, for which there are no measured limits; take "
            "a type that ropeconv writes"
        )
    limit = limits[mine.dtype]
    sums = _Sums()
    lost: str | None = None
    for start, found, source in _slabs(mine, theirs):
        q, w = found.astype(np.float64), source.astype(np.float64)
        errors = _by_block((q - w) ** 2, limit.block)
        powers = _by_block(w**2, limit.block)
        sums.add(float(errors.sum()), float(powers.sum()), float(np.vdot(q, w)))
        if lost is None:
            lost = _lost_block(f"{name} ({mine.dtype})", start, errors, powers, limit)
    if sums.power == 0.0:
        return None if sums.error == 0.0 else f"{name} is zero in the source, not in the artefact"
    report.blocks[mine.dtype] = max(report.blocks.get(mine.dtype, 0.0), sums.rms)
    return lost or _whole_tensor(f"{name} ({mine.dtype})", mine.dtype, sums, limit)


@dataclass
class _Sums:
    """Over a tensor: |q - w|^2, |w|^2 and <q, w>."""

    error: float = 0.0
    power: float = 0.0
    product: float = 0.0

    def add(self, error: float, power: float, product: float) -> None:
        self.error += error
        self.power += power
        self.product += product

    @property
    def rms(self) -> float:
        return float(np.sqrt(self.error / self.power))


def _by_block(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """(..., columns) -> (..., blocks) sums; the last block of a row may be shorter."""
    starts = np.arange(0, values.shape[-1], size)
    return np.asarray(np.add.reduceat(values, starts, axis=-1))


def _lost_block(
    what: str,
    start: int,
    errors: NDArray[np.float64],
    powers: NDArray[np.float64],
    limit: BlockLimits,
) -> str | None:
    """The first block that is further off than its type rounds. start: the first row's number.

    A block whose numbers are a thousandth of its neighbours' is measured against theirs: a type's
    scales reach no further down.
    """
    floor = NEGLIGIBLE * powers.mean()
    wrong = ~(errors <= limit.worst**2 * np.maximum(powers, floor))
    if not wrong.any():
        return None
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    first = at[-1] * limit.block
    place = ", ".join(map(str, (start + at[0], *at[1:-1], f"{first}:{first + limit.block}")))
    off = float(np.sqrt(errors[at] / max(powers[at], floor))) if floor else float("inf")
    return (
        f"{what} [{place}] is off by {off:.0%} RMS, no block of it by more than "
        f"{limit.worst:.0%}; {int(wrong.sum())} blocks in its rows are"
    )


def _whole_tensor(what: str, dtype: str, sums: _Sums, limit: BlockLimits) -> str | None:
    """The limits that hold over a tensor."""
    if not sums.rms <= limit.rms:
        return f"{what} is off by {sums.rms:.2%} RMS, {dtype} is good for {limit.rms:.0%}"
    slope = sums.product / sums.power - 1.0
    slope += sums.rms**2 if limit.projected else 0.0
    if not limit.slope_low <= slope <= limit.slope_high:
        allowed = f"{limit.slope_low:+.2%} to {limit.slope_high:+.2%}"
        return f"{what} is {slope:+.2%} too large on the whole, {dtype} rounds within {allowed}"
    return None
