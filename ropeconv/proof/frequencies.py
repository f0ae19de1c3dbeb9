"""Rung: the frequencies that the artefact's runtime will compute, against those in transformers'
own rotary module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ropeconv.proof.reference.rotary import Rotary
from ropeconv.rope.spec import Frequencies

Array = NDArray[np.float64]

RTOL = 5e-6  # independent solvers agree to 2e-6, mistakes start at 1e-3
MAGNITUDE_RTOL = 1e-6
STILL = 1e-20  # radians a token: a pair that does not rotate, however long the text


@dataclass(frozen=True)
class FrequencyReport:
    """findings: one line for each disagreement. worst: largest |found / expected - 1| of any pair,
    0 positions needed.
    """

    findings: tuple[str, ...]
    worst: float
    pairs: int


def compare_frequencies(
    found: Mapping[str, Frequencies | None], expected: Mapping[str, Rotary]
) -> FrequencyReport:
    """Every layer type of the artefact against the reference's, and none of the reference's own
    left out.
    """
    findings: list[str] = []
    worst = 0.0
    pairs = 0
    rotating = {layer: numbers for layer, numbers in found.items() if numbers is not None}
    if not rotating:
        findings.append("the artefact has no rotary frequencies to compare")
    for layer, numbers in rotating.items():
        if layer not in expected:
            findings.append(f"{layer}: the reference has no such layers")
            continue
        for name, mine, theirs in _tables(numbers, expected[layer]):
            lines, ratio = _compare_table(f"{layer}{name}", mine, theirs)
            findings += lines
            worst = max(worst, ratio)
            pairs += len(mine)
        findings += _compare_rest(layer, numbers, expected[layer])
    findings += [
        f"{layer}: the artefact has no such layers"
        for layer in _own_types(expected)
        if layer not in rotating
    ]
    return FrequencyReport(tuple(findings), worst, pairs)


def _own_types(expected: Mapping[str, Rotary]) -> list[str]:
    """Layer types that the artefact must have: all of a model that keeps one rotary embedding for
    each type.
    """
    distinct = len({id(rotary) for rotary in expected.values()})
    return list(expected) if distinct > 1 else []


def _tables(mine: Frequencies, theirs: Rotary) -> Iterator[tuple[str, Array, Array]]:
    if mine.long_inv_freq is None and theirs.long_inv_freq is None:
        yield "", mine.inv_freq, theirs.inv_freq
        return
    yield " (short)", mine.inv_freq, theirs.inv_freq
    yield " (long)", _long(mine), _long(theirs)


def _long(numbers: Frequencies | Rotary) -> Array:
    return numbers.inv_freq if numbers.long_inv_freq is None else numbers.long_inv_freq


def _compare_table(where: str, mine: Array, theirs: Array) -> tuple[list[str], float]:
    """(findings, worst relative difference) of one table of (d/2,) radians a token."""
    if mine.shape != theirs.shape:
        return [f"{where}: {len(mine)} rotary pairs, the reference has {len(theirs)}"], float("inf")
    still = (np.abs(mine) < STILL) & (np.abs(theirs) < STILL)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.where(still, 0.0, np.abs(mine / theirs - 1.0))
    off = np.where(np.isnan(off), np.inf, off)
    pair = int(np.argmax(off))
    worst = float(off[pair])
    if worst <= RTOL:
        return [], worst
    ratio = float(mine[pair] / theirs[pair]) if theirs[pair] else float("inf")
    count = int(np.sum(off > RTOL))
    text = (
        f"{where}: pair {pair} rotates by {mine[pair]:.9g} radians a token, "
        f"expected {theirs[pair]:.9g}"
    )
    return [f"{text} (ratio {ratio:.6g}; {count} of {len(mine)} pairs differ)"], worst


def _compare_rest(layer: str, mine: Frequencies, theirs: Rotary) -> list[str]:
    findings = []
    if not abs(mine.attention_factor / theirs.attention_factor - 1.0) <= MAGNITUDE_RTOL:
        text = f"{layer}: cos and sin are multiplied by {mine.attention_factor:.9g}"
        findings.append(f"{text}, expected {theirs.attention_factor:.9g}")
    if switches(theirs) != switches(mine):
        found, expected = switches(mine) or "never", switches(theirs) or "never"
        findings.append(f"{layer}: long factors start past {found} tokens, expected {expected}")
    return findings


def switches(numbers: Frequencies | Rotary) -> int | None:
    """The length past which other frequencies act, None when there is only one table or both say
    the same.
    """
    if numbers.long_inv_freq is None or np.allclose(
        numbers.long_inv_freq, numbers.inv_freq, rtol=RTOL, atol=0
    ):
        return None
    return numbers.switch_context
