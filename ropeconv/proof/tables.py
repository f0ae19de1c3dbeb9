"""The report of a verification for eyes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ropeconv.gates import ANGLES_PART, Gates
from ropeconv.proof.compare import Band
from ropeconv.proof.report import FAIL, OK, SKIPPED, TOLD, Measured, Report

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {OK: "green", FAIL: "red", SKIPPED: "yellow", TOLD: "cyan"}
SHOWN = 5  # findings of a rung on the terminal; JSON has all


def render(report: Report, console: Console) -> None:
    """The report for eyes: what, rungs, logits by position band, verdict."""
    from rich.text import Text

    lines = {
        "artefact": f"{report.path} ({report.target} {report.type})",
        "reference": f"{report.source} ({report.family}, transformers, {_arithmetic(report)})",
        "context": f"{report.trained} -> {report.context} tokens ({report.scaling})",
    }
    for label, value in lines.items():
        console.print(Text(f"{label:<10} ", style="bold") + Text(value))
    console.print(_rung_table(report))
    for measured in report.measured:
        console.print(_band_table(measured, trained=report.trained))
    console.print(Text("seconds    ", style="bold") + Text(_spent(report.seconds)))
    console.print(Text(report.verdict, style="bold green" if report.ok else "bold red"))


def _arithmetic(report: Report) -> str:
    return report.dtype if report.device == "cpu" else f"{report.dtype} on {report.device}"


def _spent(seconds: Mapping[str, float]) -> str:
    parts = [f"{what} {spent:.1f}" for what, spent in seconds.items()]
    return ", ".join([*parts, f"all {sum(seconds.values()):.1f}"])


def _rung_table(report: Report) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "result", "", box=None, pad_edge=False, show_header=False)
    for rung in report.rungs:
        more = (
            [f"... and {len(rung.findings) - SHOWN} more (--json has all)"]
            if len(rung.findings) > SHOWN
            else []
        )
        text = "\n".join([rung.summary, *rung.findings[:SHOWN], *more])
        table.add_row(rung.name, Text(rung.status, style=STYLES[rung.status]), Text(text))
    return table


def _band_table(measured: Measured, *, trained: int) -> Any:
    from rich.table import Table

    title = (
        f"{measured.artefact} against {measured.reference}, {measured.run.name}: logits of "
        f"{measured.run.tokens} tokens (* past the trained {trained}; @ position)"
    )
    table = Table(
        "positions", title=title, title_justify="left", title_style="", box=None, pad_edge=False
    )
    for name in ("NMSE", "worst", "max diff", "KL", "worst", "top-1", "loss diff"):
        table.add_column(name, justify="right", no_wrap=True)
    for band in (*measured.bands, measured.whole):
        mark = "*" if band.start >= trained else ""
        label = "all" if band is measured.whole else f"{band.start}-{band.stop - 1}{mark}"
        table.add_row(label, *_cells(band))
    if measured.gates is not None:
        table.add_row(*_limits(measured.gates, judged=measured.judged))
    return table


def _limits(gates: Gates, *, judged: bool) -> tuple[str, ...]:
    label = "limit" if judged else "usual"
    return (
        f"{label} to {ANGLES_PART}" if gates.grows else label,
        f"{gates.nmse:.0e}",
        "",
        "",
        f"{gates.kl:.0e}",
        "",
        f"{gates.top1:.1%}",
        f"{gates.loss:.0e}",
    )


def _cells(band: Band) -> tuple[str, ...]:
    return (
        f"{band.nmse:.1e}",
        f"{band.nmse_max:.1e} @{band.nmse_at}",
        f"{band.max_abs:.2g} @{band.max_abs_at}",
        f"{band.kl:.1e}",
        f"{band.kl_max:.1e} @{band.kl_at}",
        f"{band.top1:.2%}",
        f"{band.loss_difference:+.1e}",
    )
