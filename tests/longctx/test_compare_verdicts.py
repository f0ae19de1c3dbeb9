"""Verdicts and advice follow the numbers; the best row for a stated use."""

from __future__ import annotations

import numpy as np
import pytest

from ropeconv.longctx.compare.verdicts import Against, compare_losses, describe, recommend
from ropeconv.longctx.measuring.differences import Difference, paired_difference
from ropeconv.longctx.measuring.variants import default_methods, known_methods


def test_verdicts_follow_the_numbers() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(3, 1, 2047).astype(np.float32)
    better, same = base.copy(), base + rng.normal(0, 0.1, 2047).astype(np.float32)
    better[1023:] -= 0.5
    assert paired_difference(better, base, 1024, 2048).sign == -1
    assert paired_difference(base, better, 1024, 2048).sign == 1
    assert paired_difference(same, base, 0, 2048).sign == 0
    assert paired_difference(better, base, 0, 1024).sign == 0
    found = compare_losses(better, base, name="none", trained=1024)
    assert "past 1024 beats none by 0.500" in describe(found, trained=1024)
    assert "below 1024 no clear difference from none" in describe(found, trained=1024)
    short = compare_losses(better[:500], base[:500], name="none", trained=1024)
    assert short.long is None
    assert "past" not in describe(short, trained=1024)


def against(long: float, short: float = 0.0) -> Against:
    return Against("x", Difference(short, 0.001), Difference(long, 0.001))


@pytest.mark.parametrize(
    ("method", "pi", "none", "words"),
    [
        ("yarn", against(-0.5), against(-2.0), "worth it: clearly better than PI"),
        ("yarn", against(0.5), against(-2.0), "not worth its complexity over PI"),
        ("yarn", against(0.0), against(-2.0), "not worth its complexity over PI"),
        (
            "yarn",
            against(0.0, -0.1),
            against(-2.0),
            "as good as PI past the trained length, and cheaper below it",
        ),
        ("yarn", against(-0.5), against(0.5), "does not help past the trained length"),
        ("pi", None, against(-2.0), "helps past the trained length"),
        ("pi", None, against(0.0), "does not help past the trained length"),
        ("none", None, None, ""),
    ],
)
def test_advice(method: str, pi: Against | None, none: Against | None, words: str) -> None:
    assert recommend(method, pi, none) == words


def test_the_methods_are_the_static_kinds_that_a_factor_determines() -> None:
    assert default_methods() == ["none", "pi", "llama3", "ntk", "ntk-critical", "ntk-parts", "yarn"]
    assert set(known_methods()) - set(default_methods()) == {"dynamic"}
