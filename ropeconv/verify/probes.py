"""Rung: calls that a pass over a text does not make, against one pass of the reference over the same tokens and positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ropeconv.errors import CheckpointError
from ropeconv.target import Probe
from ropeconv.verify.reference import Reference
from ropeconv.verify.tolerances import PROBE_SLACK, Gates


@dataclass(frozen=True)
class ProbeReport:
    """findings: one line for each disagreement. worst: NMSE of the worst probe, and its name."""

    findings: tuple[str, ...]
    worst: float
    worst_name: str


def compare_probes(
    probes: Sequence[Probe], reference: Reference, gates: Gates, *, progress: Callable[[int, int], None] | None = None
) -> ProbeReport:
    """Run every probe on both sides; one that must be refused is run on the artefact's side alone."""
    findings: list[str] = []
    worst = (0.0, "")
    for done, probe in enumerate(probes, 1):
        try:
            mine = probe.run()
        except CheckpointError as error:
            if not probe.refused:
                findings.append(f"{probe.name}: {error}")
        else:
            found, nmse = _judge(probe, mine, reference, gates)
            findings += found
            worst = max(worst, (nmse, probe.name))
        if progress is not None:
            progress(done, len(probes))
    return ProbeReport(tuple(findings), *worst)


def _judge(probe: Probe, mine: NDArray[np.float32], reference: Reference, gates: Gates) -> tuple[list[str], float]:
    if probe.refused:
        return [f"{probe.name}: gave numbers where the runtime must refuse"], 0.0
    theirs = reference.run(probe.input_ids, probe.position_ids, probe.attention_mask)
    if mine.shape != theirs.shape:
        return [f"{probe.name}: logits of shape {mine.shape}, the reference has {theirs.shape}"], float("inf")
    real = probe.attention_mask.astype(bool)
    a, b = theirs[real].astype(np.float64), mine[real].astype(np.float64)  # (n, vocab)
    errors, powers = ((b - a) ** 2).sum(axis=1), ((a - a.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    nmse = float(errors.sum() / powers.sum())
    limit = PROBE_SLACK * gates.at(int(probe.position_ids.max()) + 1).nmse
    if nmse <= limit:
        return [], nmse
    row = int(np.argmax(np.where(np.isnan(errors), np.inf, errors / powers)))
    place = int(probe.position_ids[real][row])
    return [f"{probe.name}: NMSE {nmse:.2e} is above {limit:.0e} (worst at position {place})"], nmse
