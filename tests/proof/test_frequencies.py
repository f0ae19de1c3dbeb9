"""The frequencies rung: every fault is found, and rounding is none."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ropeconv.proof.frequencies import compare_frequencies
from ropeconv.proof.reference.rotary import Rotary
from ropeconv.rope.spec import Frequencies

INV = 20000.0 ** (-np.arange(8) / 8)
ROTARY = Rotary(INV, 1.1)
FREQUENCY_FAULTS: dict[str, tuple[Frequencies, Rotary, str]] = {
    "one pair off by 1e-5": (
        Frequencies(INV * (1 + 1e-5 * (np.arange(8) == 5)), INV, 1.1),
        ROTARY,
        "pair 5 .*1 of 8 pairs differ",
    ),
    "order reversed": (Frequencies(INV[::-1].copy(), INV, 1.1), ROTARY, "8 of 8 pairs differ"),
    "half as many pairs": (
        Frequencies(INV[:4], INV[:4], 1.1),
        ROTARY,
        "4 rotary pairs, the reference has 8",
    ),
    "magnitude": (Frequencies(INV, INV, 1.0), ROTARY, "multiplied by 1, expected 1.1"),
    "not finite": (Frequencies(INV * np.nan, INV, 1.1), ROTARY, "8 of 8 pairs differ"),
    "a still pair that turns": (
        Frequencies(INV, INV, 1.1),
        Rotary(INV * (np.arange(8) < 7), 1.1),
        "pair 7 .*ratio inf",
    ),
    "long table missing": (
        Frequencies(INV, INV, 1.1),
        Rotary(INV, 1.1, INV / 4, 256),
        r"\(long\): pair",
    ),
    "switch elsewhere": (
        Frequencies(INV, INV, 1.1, INV / 4, 512),
        Rotary(INV, 1.1, INV / 4, 256),
        "past 512 tokens, expected 256",
    ),
}


@pytest.mark.parametrize("fault", FREQUENCY_FAULTS)
def test_a_frequency_fault_is_found(fault: str) -> None:
    mine, theirs, text = FREQUENCY_FAULTS[fault]
    report = compare_frequencies({"full_attention": mine}, {"full_attention": theirs})
    assert report.findings
    assert any(re.search(text, line) for line in report.findings)


def test_float32_rounding_and_pinned_tables_are_no_fault() -> None:
    rounded = INV.astype(np.float32).astype(np.float64)
    plain = {"full_attention": Frequencies(INV, INV, 1.1)}
    assert compare_frequencies(plain, {"full_attention": Rotary(rounded, 1.1)}).findings == ()
    pinned = Frequencies(INV, INV, 1.1, INV.copy(), 512)
    assert (
        compare_frequencies({"full_attention": pinned}, {"full_attention": ROTARY}).findings == ()
    )
    still = INV * (np.arange(8) < 7)
    found = Frequencies(np.where(still == 0, 1e-30, still), INV, 1.1)
    assert (
        compare_frequencies(
            {"full_attention": found}, {"full_attention": Rotary(still, 1.1)}
        ).findings
        == ()
    )


def test_layer_types_have_to_fit() -> None:
    full, sliding = Rotary(INV, 1.0), Rotary(INV / 2, 1.0)
    both = {"full_attention": full, "sliding_attention": sliding}
    only = {"full_attention": Frequencies(INV, INV, 1.0)}
    assert compare_frequencies(only, both).findings == (
        "sliding_attention: the artefact has no such layers",
    )
    assert compare_frequencies(only, dict.fromkeys(both, full)).findings == ()
    assert (
        compare_frequencies({}, both).findings[0]
        == "the artefact has no rotary frequencies to compare"
    )
    swapped = {
        "full_attention": Frequencies(INV / 2, INV, 1.0),
        "sliding_attention": Frequencies(INV, INV, 1.0),
    }
    assert len(compare_frequencies(swapped, both).findings) == 2
