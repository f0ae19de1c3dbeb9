"""Rung: calls that a pass over a text does not make, against one pass of the reference over the
same tokens and positions.

Text at scattered positions makes single tokens ill-conditioned, so each row of a batch is judged by
the median of its tokens, and by the median of its last ones, which are decoded one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ropeconv.artefact import Probe
from ropeconv.errors import CheckpointError
from ropeconv.gates import Gates
from ropeconv.proof.reference.layerwise import Scattered

# Probes are a few tokens at scattered positions, and noisier than a band of text: medians up to 8
# times its NMSE
PROBE_SLACK = 10.0
LAST = 3  # tokens at the end of a row that are judged by themselves


@dataclass(frozen=True)
class ProbeReport:
    """findings: one line for each disagreement. worst: median NMSE of the worst probe, and its
    name.
    """

    findings: tuple[str, ...]
    worst: float
    worst_name: str


def probe_calls(probes: Sequence[Probe], text: Sequence[int]) -> list[Scattered]:
    """What the reference runs: tokens of `text` at the positions of every probe that must give
    numbers.
    """
    return [
        (_tokens(probe, text), probe.position_ids, probe.attention_mask)
        for probe in probes
        if not probe.refused
    ]


def _tokens(probe: Probe, text: Sequence[int]) -> NDArray[np.int64]:
    return np.resize(np.array(text, np.int64), probe.position_ids.shape)


def compare_probes(
    probes: Sequence[Probe],
    expected: Sequence[NDArray[np.float32]],
    text: Sequence[int],
    gates: Gates,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> ProbeReport:
    """Run every probe. expected: the reference's logits of `probe_calls`."""
    findings: list[str] = []
    worst = (0.0, "")
    theirs = iter(expected)
    for done, probe in enumerate(probes, 1):
        wanted = None if probe.refused else next(theirs)
        found, nmse = _run(probe, wanted, _tokens(probe, text), gates)
        findings += found
        worst = max(worst, (nmse, probe.name))
        if progress is not None:
            progress(done, len(probes))
    return ProbeReport(tuple(findings), *worst)


def _run(
    probe: Probe, wanted: NDArray[np.float32] | None, ids: NDArray[np.int64], gates: Gates
) -> tuple[list[str], float]:
    """(findings, NMSE). wanted: None where the runtime must refuse."""
    try:
        mine = probe.run(ids)
    except CheckpointError as error:
        return ([] if wanted is None else [f"{probe.name}: {error}"]), 0.0
    if wanted is None:
        return [f"{probe.name}: gave numbers where the runtime must refuse"], 0.0
    return _judge(probe, mine, wanted, gates)


def _judge(
    probe: Probe, mine: NDArray[np.float32], theirs: NDArray[np.float32], gates: Gates
) -> tuple[list[str], float]:
    if mine.shape != theirs.shape:
        return [
            f"{probe.name}: logits of shape {mine.shape}, the reference has {theirs.shape}"
        ], float("inf")
    ratio = _ratios(theirs, mine)
    limit = PROBE_SLACK * gates.at(int(probe.position_ids.max()) + 1).nmse
    found = 0.0
    for row, real in zip(ratio, probe.attention_mask.astype(bool), strict=True):
        own = row[real]
        found = max(found, float(np.median(own)), float(np.median(own[-LAST:])))
    if found <= limit:
        return [], found
    worst = np.where(probe.attention_mask.astype(bool), ratio, -1.0)
    place = int(probe.position_ids.flat[int(np.argmax(worst))])
    return [
        f"{probe.name}: NMSE {found:.2e} is above {limit:.0e} (worst at position {place})"
    ], found


def _ratios(theirs: NDArray[np.float32], mine: NDArray[np.float32]) -> NDArray[np.float64]:
    """(b, s) NMSE of every token; infinite for what is not a number."""
    a, b = theirs.astype(np.float64), mine.astype(np.float64)
    powers = ((a - a.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    ratio = ((b - a) ** 2).sum(axis=-1) / powers
    return np.where(np.isfinite(ratio), ratio, np.inf)
