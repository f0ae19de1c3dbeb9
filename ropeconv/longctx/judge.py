"""Paired verdicts: the same tokens under two scalings, the mean difference of their losses and its standard error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ropeconv.longctx.bands import standard_error
from ropeconv.longctx.engine import Losses

CLEAR = 2.0  # standard errors that a difference must exceed
NOTABLE = 0.01  # nats; a clear difference below this is of no use


@dataclass(frozen=True)
class Difference:
    """mean: nats a token, negative = better than the other; error: its standard error."""

    mean: float
    error: float

    @property
    def sign(self) -> int:
        """-1 better, 1 worse, 0 no clear difference."""
        if not (abs(self.mean) > NOTABLE and abs(self.mean) > CLEAR * self.error):  # a NaN is no clear difference
            return 0
        return -1 if self.mean < 0 else 1

    def __str__(self) -> str:
        return f"{abs(self.mean):.3f} ± {self.error:.3f} nats"


def pair(losses: Losses, other: Losses, start: int, stop: int) -> Difference:
    """`losses` against `other` over the tokens at positions start to stop - 1."""
    delta = losses[max(start - 1, 0) : stop - 1].astype(np.float64) - other[max(start - 1, 0) : stop - 1]
    return Difference(float(delta.mean()), standard_error(delta))


@dataclass(frozen=True)
class Against:
    """One row against another, below and past the trained length; None where the text has no such positions."""

    name: str
    short: Difference
    long: Difference | None


def compare_losses(losses: Losses, other: Losses, *, name: str, trained: int) -> Against:
    """Both regions of one text."""
    end = len(losses) + 1
    long = pair(losses, other, trained, end) if end - trained >= 2 else None
    return Against(name, pair(losses, other, 0, min(trained, end)), long)


def describe(against: Against, *, trained: int) -> str:
    """The difference in words: past the trained length first, then the price below it."""
    words = {-1: "beats {name} by {delta}", 0: "no clear difference from {name} ({delta})", 1: "loses to {name} by {delta}"}
    parts = []
    for where, delta in ((f"past {trained}", against.long), (f"below {trained}", against.short)):
        if delta is not None:
            parts.append(f"{where} {words[delta.sign].format(name=against.name, delta=delta)}")
    return "; ".join(parts)


def recommend(method: str, pi: Against | None, none: Against | None) -> str:
    """One word of advice for a method, from its differences to PI and to the unscaled model."""
    if none is None or none.long is None:
        return ""
    if none.long.sign >= 0:
        return "does not help past the trained length"
    if method == "pi" or pi is None or pi.long is None:
        return "helps past the trained length"
    if pi.long.sign < 0:
        return "worth it: clearly better than PI"
    if pi.long.sign == 0 and pi.short.sign < 0:
        return "as good as PI past the trained length, and cheaper below it"
    return "not worth its complexity over PI"
