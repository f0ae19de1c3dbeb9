"""Rung: every tensor of the artefact against the source's, slab by slab, in Hugging Face's names
and order.

A float type must hold exactly the source's number rounded once; what a block type must, is said in
blocks.py.
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
from ropeconv.proof.weights.blocks import Slab, Sums, lost_block, lost_stretch, whole_tensor

SLAB = 1 << 22  # values at a time


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
    limit, what = limits[mine.dtype], f"{name} ({mine.dtype})"
    sums = Sums()
    lost: str | None = None
    for start, found, source in _slabs(mine, theirs):
        slab = Slab(found, source, limit.steps.block if limit.steps is not None else limit.block)
        sums.add(slab)
        if lost is None:
            lost = lost_stretch(what, start, slab, limit) or lost_block(what, start, slab, limit)
    if sums.power == 0.0:
        return None if sums.error == 0.0 else f"{name} is zero in the source, not in the artefact"
    report.blocks[mine.dtype] = max(report.blocks.get(mine.dtype, 0.0), sums.rms)
    return lost or whole_tensor(what, mine.dtype, sums, limit)
