"""What a verification found, and its verdict; values for scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ropeconv.gates import Gates
from ropeconv.proof.compare import Band
from ropeconv.proof.text import Pass

OK, FAIL, SKIPPED, TOLD = "ok", "fail", "not run", "told"
# how the artefact ran
FILE = "the file"
PRECISE = "the file with float products"
TWIN = "its float twin"
AS_RUN = "the file as it will run"


@dataclass(frozen=True)
class Rung:
    """One check. status: "ok", "fail", "not run", or "told" where no verdict hangs on it; summary:
    one line; findings: one line for each disagreement.
    """

    name: str
    status: str
    summary: str
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """One pass over the text, the artefact against the reference: bands in order, all positions
    together, and the limits before they grow with position, where there are any.

    judged: the verdict hangs on it. artefact: how it ran; reference: what it is compared with.
    """

    run: Pass
    bands: tuple[Band, ...]
    whole: Band
    gates: Gates | None
    judged: bool = True
    artefact: str = FILE
    reference: str = "PyTorch"

    @property
    def quantisation(self) -> bool:
        """Whether it says what quantisation costs: the file as it is against the source's weights,
        where its own are in other blocks.
        """
        return not self.judged and self.artefact == FILE


@dataclass(frozen=True)
class Report:
    """A verification.

    trained, context: L and L' in tokens. wanted: tokens that were to run; reached: that did.
    device, dtype: of the reference. settings: the user's own in words, "" where there are none.
    seconds: wall time by what it went into, in order, one part of another's in none.
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
    device: str = "cpu"
    dtype: str = "float32"
    settings: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)

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
        lost = [measured for measured in self.measured if measured.quantisation]
        whose = f" with the file's own {self.type} weights" if lost else ""
        coarse = f" and of a reference in {self.dtype}" if self.dtype != "float32" else ""
        head = (
            f"PASS: {self.path} computes what PyTorch computes{whose}, within the limits "
            f"of {self.type}{coarse}, over {self.reached} tokens"
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
    lost = f"loses {measured.whole.loss_difference:+.3f} nats a token to quantisation"
    return f"{lost} ({_apart(measured.whole)})"


def cost_words(measured: Measured) -> str:
    """What the user's own settings cost, in the numbers of a pass."""
    lost = f"{measured.whole.loss_difference:+.4f} nats a token against {measured.reference}"
    return f"{lost} ({_apart(measured.whole)})"


def _apart(whole: Band) -> str:
    before, after = (
        math.exp(min(loss, 700.0)) for loss in (whole.loss_reference, whole.loss_artefact)
    )
    return (
        f"perplexity {before:.4g} -> {after:.4g}, KL {whole.kl:.2g}, first choice kept at "
        f"{whole.top1:.1%}"
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
