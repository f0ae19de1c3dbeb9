"""The comparison can fail: faults planted in a correct rope, each of which it must catch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ropeconv.config.rope_parameters import write_rope_parameters
from ropeconv.rope.build import find_kind, make_parameters
from ropeconv.rope.solve import solve
from ropeconv.rope.spec import Rope
from tests.rope.rope_reference import build_config, compare, tables

L = 8192
PAIRS = tuple(1.0 + i / 3 for i in range(32))
VALUES: dict[str, dict[str, Any]] = {
    "linear": {"factor": 4.0},
    "ntk": {"factor": 4.0},
    "ntk-critical": {"factor": 4.0},
    "ntk-parts": {"factor": 4.0},
    "yarn": {"factor": 4.0},
    "longrope": {"short_factor": PAIRS, "long_factor": PAIRS, "factor": 4.0},
    "llama3": {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "proportional": {"factor": 4.0, "partial_rotary_factor": 0.5},
}


def make(kind: str) -> Rope:
    return Rope(kind, 1e5, 64, L, 4 * L, make_parameters(find_kind(kind), VALUES[kind]))


def altered(rope: Rope, **values: Any) -> Rope:
    return replace(rope, parameters=replace(rope.parameters, **values))


def judge(rope: Rope, reference: Rope) -> None:
    """Compare our numbers for `rope` with transformers' for `reference`, the way the grid tests
    do.
    """
    config = build_config(
        "llama", 64, **write_rope_parameters({"full_attention": reference}, nested=False)
    )
    found = solve(rope)
    compare(found.inv_freq, found.attention_factor, tables(config), base=found.base_inv_freq)


@pytest.mark.parametrize("kind", sorted(VALUES))
def test_the_sound_rope_passes(kind: str) -> None:
    judge(make(kind), make(kind))


@pytest.mark.parametrize("kind", sorted(VALUES))
@pytest.mark.parametrize("error", [1.01, 0.99])
def test_factor_off_by_one_percent(kind: str, error: float) -> None:
    rope = make(kind)
    with pytest.raises(AssertionError, match=r"pair|magnitude"):
        judge(altered(rope, factor=rope.parameters.factor * error), rope)


@pytest.mark.parametrize("kind", sorted(VALUES))
def test_theta_halved(kind: str) -> None:
    rope = make(kind)
    with pytest.raises(AssertionError, match="pair"):
        judge(replace(rope, theta=rope.theta / 2), rope)


FAULTS: dict[str, tuple[str, Callable[[Rope], Rope]]] = {
    "truncate flipped": ("yarn", lambda rope: altered(rope, truncate=False)),
    "other ramp": ("yarn", lambda rope: altered(rope, ramp="paper")),
    "yarn magnitude dropped": ("yarn", lambda rope: altered(rope, attention_factor=1.0)),
    "longrope magnitude dropped": ("longrope", lambda rope: altered(rope, attention_factor=1.0)),
    "pairs reversed": (
        "longrope",
        lambda rope: altered(
            rope, short_factor=PAIRS[::-1], long_factor=PAIRS[::-1], attention_factor=None
        ),
    ),
    "L taken for L'": ("yarn", lambda rope: replace(rope, original_context=4 * L)),
    "one pair off by 1e-5": (
        "longrope",
        lambda rope: altered(
            rope,
            short_factor=(PAIRS[0] * (1 + 1e-5), *PAIRS[1:]),
            long_factor=(PAIRS[0] * (1 + 1e-5), *PAIRS[1:]),
        ),
    ),
    "scaling dropped": ("linear", lambda rope: altered(rope, factor=1.0)),
    "proportion lost": ("proportional", lambda rope: altered(rope, partial_rotary_factor=1.0)),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_other_faults(fault: str) -> None:
    kind, plant = FAULTS[fault]
    rope = make(kind)
    with pytest.raises(AssertionError, match=r"pair|magnitude"):
        judge(plant(rope), rope)
