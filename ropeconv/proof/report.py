"""What a verification found: values for scripts, tables for eyes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ropeconv.gates import Gates
from ropeconv.proof.compare import Band
from ropeconv.proof.text import Pass

if TYPE_CHECKING:
    from rich.console import Console

OK, FAIL, SKIPPED = "ok", "fail", "not run"
STYLES = {OK: "green", FAIL: "red", SKIPPED: "yellow"}
SHOWN = 5  # findings of a rung on the terminal; JSON has all


@dataclass(frozen=True)
class Rung:
    """One check. status: "ok", "fail" or "not run"; summary: one line; findings: one line for each
    disagreement.
    """

    name: str
    status: str
    summary: str
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """One pass over the text: bands in order, all positions together, and the limits before they
    grow with position.

    judged: the verdict hangs on it; else it is against the source's weights where the file's own
    are in other blocks, and says what quantisation costs.
    """

    run: Pass
    bands: tuple[Band, ...]
    whole: Band
    gates: Gates
    judged: bool = True


@dataclass(frozen=True)
class Report:
    """A verification. trained, context: L and L' in tokens. wanted: tokens that were to run;
    reached: that did.
    """

    path: str
    target: str
    type: str
    source: str
    family: str
    scaling: str
    trained: int
    context: int
    rungs: tuple[Rung, ...]
    measured: tuple[Measured, ...] = ()
    wanted: int = 0

    @property
    def ok(self) -> bool:
        """Whether no rung failed and logits ran."""
        return all(rung.status != FAIL for rung in self.rungs) and bool(self.measured)

    @property
    def reached(self) -> int:
        """Tokens of the longest pass."""
        return max((m.run.tokens for m in self.measured), default=0)

    @property
    def verdict(self) -> str:
        """One line, which says what was not shown too."""
        failed = [rung.name for rung in self.rungs if rung.status == FAIL]
        skipped = [rung.name for rung in self.rungs if rung.status == SKIPPED]
        if failed:
            return f"FAIL: {', '.join(failed)}{self._untested(skipped)}"
        if not self.measured:
            return f"FAIL: logits did not run{self._untested(skipped)}"
        lost = [measured for measured in self.measured if not measured.judged]
        whose = f" with the file's own {self.type} weights" if lost else ""
        head = (
            f"PASS: {self.path} computes what PyTorch computes{whose}, within the limits "
            f"of {self.type}, over {self.reached} tokens"
        )
        told = f"; {lost_words(lost[-1])}" if lost else ""
        return head + told + self._untested(skipped)

    def _untested(self, skipped: list[str]) -> str:
        parts = [f"{name} not run" for name in skipped]
        if self.measured and self.reached <= self.trained < self.context:
            more = min(self.trained + 512, self.context)
            how = (
                "a longer --text"
                if self.reached < self.wanted
                else f"--tokens {more}{' or more' * (more < self.context)}"
            )
            parts.append(f"logits past the trained {self.trained} tokens were not run (give {how})")
        return "".join(f"; {part}" for part in parts)


def lost_words(measured: Measured) -> str:
    """What quantisation costs, in the numbers of a pass against the source's weights."""
    whole = measured.whole
    return (
        f"loses {whole.loss_difference:+.3f} nats a token to quantisation (KL {whole.kl:.2g}, "
        f"first choice kept at {whole.top1:.1%})"
    )


def to_json(report: Report) -> dict[str, Any]:
    """Everything in the report as JSON values; a number that is not finite is its name as a
    string.
    """
    values = asdict(report) | {
        "ok": report.ok,
        "verdict": report.verdict,
        "reached": report.reached,
    }
    for measured, plain in zip(report.measured, values["measured"], strict=True):
        for band, entry in zip(
            (*measured.bands, measured.whole), (*plain["bands"], plain["whole"]), strict=True
        ):
            entry["loss_difference"] = band.loss_difference
    found: dict[str, Any] = _finite(values)
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def render(report: Report, console: Console) -> None:
    """The report for eyes: what, rungs, logits by position band, verdict."""
    from rich.text import Text

    lines = {
        "artefact": f"{report.path} ({report.target} {report.type})",
        "reference": f"{report.source} ({report.family}, transformers, float32)",
        "context": f"{report.trained} -> {report.context} tokens ({report.scaling})",
    }
    for label, value in lines.items():
        console.print(Text(f"{label:<10} ", style="bold") + Text(value))
    console.print(_rung_table(report))
    for measured in report.measured:
        console.print(_band_table(measured, trained=report.trained))
    console.print(Text(report.verdict, style="bold green" if report.ok else "bold red"))


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

    gates = measured.gates
    against = "" if measured.judged else " against the source's weights"
    title = (
        f"logits{against}, {measured.run.name}: {measured.run.tokens} tokens (* past the "
        f"trained {trained}; @ position)"
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
    limits = (
        f"{gates.nmse:.0e}",
        "",
        "",
        f"{gates.kl:.0e}",
        "",
        f"{gates.top1:.1%}",
        f"{gates.loss:.0e}",
    )
    label = "limit" if measured.judged else "usual"
    table.add_row(f"{label} to 4096" if gates.grows else label, *limits)
    return table


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
