"""Rung: every tensor of the artefact against the source's, slab by slab, in Hugging Face's names
and order.

A float type must hold exactly the source's number rounded once; what a block type must, is said in
blocks.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ropeconv.arch.stack import Place
from ropeconv.gates import EXACT, BlockLimits
from ropeconv.kit.cpus import usable_cpus
from ropeconv.kit.float_types import FLOATS, ULP, numpy_dtype
from ropeconv.kit.slabs import cut
from ropeconv.model import Tensor
from ropeconv.proof.weights.blocks import Slab, Sums, lost_block, lost_stretch, whole_tensor

SLAB = 1 << 21  # values at a time, in each of
THREADS = 4  # at most


@dataclass
class WeightReport:
    """findings: one line for each disagreement. exact: tensors that hold the source's numbers;
    blocks: type -> worst RMS.
    """

    findings: list[str] = field(default_factory=list)
    tensors: int = 0
    exact: int = 0
    blocks: dict[str, float] = field(default_factory=dict)

    def add(self, outcome: _Outcome) -> None:
        """Count one more tensor."""
        self.tensors += 1
        self.exact += outcome.exact
        if outcome.kind is not None:
            self.blocks[outcome.kind] = max(self.blocks.get(outcome.kind, 0.0), outcome.rms)
        if outcome.finding is not None:
            self.findings.append(outcome.finding)


@dataclass(frozen=True)
class _Outcome:
    """Of one tensor. kind, rms: of a block type that was compared."""

    finding: str | None = None
    exact: bool = False
    kind: str | None = None
    rms: float = 0.0


@runtime_checkable
class Assembled(Protocol):
    """A tensor that is made of others. apart: another tensor of its shape as they are."""

    @property
    def parts(self) -> Sequence[Tensor]:
        """As they are stored."""

    def apart(self, whole: Tensor) -> Sequence[Tensor]:
        """One for each of the parts."""


def _worst(found: Sequence[_Outcome]) -> _Outcome:
    """Of a tensor's parts."""
    worst = max(found, key=lambda one: one.rms)
    return replace(worst, exact=all(one.exact for one in found))


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

    def compare(name: str, place: Place) -> _Outcome:
        return _of_parts(name, artefact[name], source[name], place)

    def _of_parts(name: str, mine: Tensor, theirs: Tensor, place: Place) -> _Outcome:
        """A tensor, or what is stored in its place."""
        if not isinstance(mine, Assembled):
            return _of_one(name, mine, theirs, place)
        pairs = zip(mine.parts, mine.apart(theirs), strict=True)
        found = [_of_one(f"{name} ({n})", *pair, place) for n, pair in enumerate(pairs, 1)]
        return next((one for one in found if one.finding), _worst(found))

    def _of_one(name: str, mine: Tensor, theirs: Tensor, place: Place) -> _Outcome:
        same = mine.dtype in FLOATS or mine.dtype == theirs.dtype
        if same or limits.get(mine.dtype) == EXACT:
            size = place.weight.offset or place.weight.slack
            return _compare_exact(name, mine, theirs, offset=size)
        return _compare_blocks(name, mine, theirs, limits)

    report = WeightReport()
    with ThreadPoolExecutor(min(THREADS, usable_cpus())) as pool:
        for done, outcome in enumerate(pool.map(compare, weights, weights.values()), 1):
            report.add(outcome)
            if progress is not None:
                progress(done, len(weights))
    return report


def _slabs(mine: Tensor, theirs: Tensor) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
    """(first row, artefact's rows, source's rows): floats as stored, blocks as float32."""
    for start, stop in cut(mine.shape, values=SLAB):
        yield start, mine.rows(start, stop), theirs.rows(start, stop)


def _compare_exact(name: str, mine: Tensor, theirs: Tensor, *, offset: float) -> _Outcome:
    """The first value that is not the source's rounded once to the artefact's type."""
    stored_as = numpy_dtype(mine.dtype if mine.dtype in FLOATS else "F32")
    for start, stored, source in _slabs(mine, theirs):
        with np.errstate(over="ignore"):
            expected = source.astype(np.float32, copy=False).astype(stored_as, copy=False)
        # not for what is no number, which equals nothing
        if stored.dtype == stored_as and (stored == expected).all():
            continue
        a, b = stored.astype(np.float64), expected.astype(np.float64)
        # 1 + w is stored: one rounding at that size, undone by the view
        slack = ULP[mine.dtype] * (offset + np.abs(b)) if offset else 0.0
        wrong = ~(np.abs(a - b) <= slack)
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            place = f"{name}[{', '.join(map(str, (start + at[0], *at[1:])))}]"
            return _Outcome(
                f"{place} is {a[at]:.9g} ({mine.dtype}), the source's {float(source[at]):.9g} "
                f"rounds to {b[at]:.9g}; {int(wrong.sum())} of {wrong.size} values in its rows "
                f"differ"
            )
    return _Outcome(exact=True)


def _compare_blocks(
    name: str, mine: Tensor, theirs: Tensor, limits: Mapping[str, BlockLimits]
) -> _Outcome:
    kind = mine.dtype
    if kind not in limits:
        return _Outcome(
            f"{name} is {kind}, for which there are no measured limits; take a type that ropeconv "
            f"writes"
        )
    limit, what = limits[kind], f"{name} ({kind})"
    sums = Sums()
    lost: str | None = None
    for start, found, source in _slabs(mine, theirs):
        slab = Slab(found, source, limit.steps.block if limit.steps is not None else limit.block)
        sums.add(slab)
        if lost is None:
            lost = lost_stretch(what, start, slab, limit) or lost_block(what, start, slab, limit)
    if sums.power == 0.0:
        wrong = f"{name} is zero in the source, not in the artefact"
        return _Outcome(wrong if sums.error else None)
    return _Outcome(lost or whole_tensor(what, kind, sums, limit), kind=kind, rms=sums.rms)
