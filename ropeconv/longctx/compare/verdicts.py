"""Verdicts on a variant: how it differs from PI and from the unscaled model, and the advice."""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.longctx.measuring.bands import Losses
from ropeconv.longctx.measuring.differences import Difference, paired_difference
from ropeconv.longctx.measuring.variants import BASELINE

WORDS = {
    -1: "beats {name} by {delta}",
    0: "no clear difference from {name} ({delta})",
    1: "loses to {name} by {delta}",
}


@dataclass(frozen=True)
class Against:
    """One variant against another, below and past the trained length.

    long: None where the text has no such positions.
    """

    name: str
    short: Difference
    long: Difference | None


def compare_losses(losses: Losses, other: Losses, *, name: str, trained: int) -> Against:
    """Both regions of one text."""
    end = len(losses) + 1
    long = paired_difference(losses, other, trained, end) if end - trained >= 2 else None
    return Against(name, paired_difference(losses, other, 0, min(trained, end)), long)


def describe(against: Against, *, trained: int) -> str:
    """The difference in words: past the trained length first, then the price below it."""
    regions = ((f"past {trained}", against.long), (f"below {trained}", against.short))
    return "; ".join(
        f"{where} {WORDS[delta.sign].format(name=against.name, delta=delta)}"
        for where, delta in regions
        if delta is not None
    )


def recommend(method: str, pi: Against | None, none: Against | None) -> str:
    """One word of advice for a method, from its differences to PI and to the unscaled model."""
    if none is None or none.long is None:
        return ""
    if none.long.sign >= 0:
        return "does not help past the trained length"
    if method == BASELINE or pi is None or pi.long is None:
        return "helps past the trained length"
    if pi.long.sign < 0:
        return "worth it: clearly better than PI"
    if pi.long.sign == 0 and pi.short.sign < 0:
        return "as good as PI past the trained length, and cheaper below it"
    return "not worth its complexity over PI"
