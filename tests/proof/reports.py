"""What tests ask of a report."""

from __future__ import annotations

from ropeconv.proof.report import FAIL, Report

RUNGS = {"structure", "frequencies", "tokens", "weights", "logits"}


def statuses(report: Report) -> dict[str, str]:
    return {rung.name: rung.status for rung in report.rungs}


def failed(report: Report) -> set[str]:
    """Rungs that failed. Calls beside the text, where there are any, see what the text sees."""
    return {name for name, status in statuses(report).items() if status == FAIL} - {"probes"}


def findings(report: Report, rung: str) -> str:
    return "\n".join(next(r for r in report.rungs if r.name == rung).findings)
