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
from ropeconv.proof.reference.layerwise import LayerwiseReference, Scattered

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


def compare_probes(
    probes: Sequence[Probe],
    reference: LayerwiseReference,
    text: Sequence[int],
    gates: Gates,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> ProbeReport:
    """Run every probe on both sides, on tokens of `text`; one that must be refused is run on the
    artefact's side alone.
    """
    findings: list[str] = []
    ran: list[tuple[Probe, Scattered, NDArray[np.float32]]] = []
    for done, probe in enumerate(probes, 1):
        ids = np.resize(np.array(text, np.int64), probe.position_ids.shape)
        try:
            mine = probe.run(ids)
        except CheckpointError as error:
            if not probe.refused:
                findings.append(f"{probe.name}: {error}")
        else:
            if probe.refused:
                findings.append(f"{probe.name}: gave numbers where the runtime must refuse")
            else:
                ran.append((probe, (ids, probe.position_ids, probe.attention_mask), mine))
        if progress is not None:
            progress(done, len(probes))
    expected = reference.run_many([call for _, call, _ in ran]) if ran else []
    worst = (0.0, "")
    for (probe, _, mine), theirs in zip(ran, expected, strict=True):
        found, nmse = _judge(probe, mine, theirs, gates)
        findings += found
        worst = max(worst, (nmse, probe.name))
    return ProbeReport(tuple(findings), *worst)


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
