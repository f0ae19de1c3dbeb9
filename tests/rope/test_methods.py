"""The kinds that transformers has no name for: against what it computes elsewhere, and their
defining properties.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from ropeconv.config.rope_parameters import write_rope_parameters
from ropeconv.errors import RopeConfigError
from ropeconv.rope.build import find_kind, make_parameters
from ropeconv.rope.carry import carry_as_longrope
from ropeconv.rope.solve import is_scaled, solve
from ropeconv.rope.spec import Rope
from tests.rope.rope_reference import build_config, compare, tables

L = 8192


def rope(
    kind: str,
    *,
    theta: float = 1e5,
    dim: int = 64,
    context: int = L,
    original: int = L,
    **values: object,
) -> Rope:
    return Rope(kind, theta, dim, original, context, make_parameters(find_kind(kind), values))


def spelled(value: Rope) -> dict:
    return write_rope_parameters({"full_attention": value}, nested=False)


@pytest.mark.parametrize("dim", [32, 64, 128])
@pytest.mark.parametrize("f", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("s", [2.0, 5.0, 9.0])
def test_ntk_is_where_dynamic_ntk_comes_by(dim: int, f: float, s: float) -> None:
    length = L * (s + f - 1.0) / f
    assert length.is_integer()
    dynamic = {"rope_type": "dynamic", "rope_theta": 5e5, "factor": f}
    config = build_config("llama", dim, rope_parameters=dynamic, max_position_embeddings=L)
    found = solve(rope("ntk", theta=5e5, dim=dim, context=round(L * s), factor=s))
    compare(found.inv_freq, found.attention_factor, tables(config, length=round(length)))
    with pytest.raises(AssertionError, match="pair"):
        compare(found.inv_freq, found.attention_factor, tables(config, length=round(length * 1.01)))


# Bases worked out apart from this project for theta 1e5, d 64, L 8192.
@pytest.mark.parametrize(
    ("kind", "s", "theta"),
    [
        ("ntk", 2.0, 204_522),
        ("ntk", 4.0, 418_294),
        ("ntk", 8.0, 855_504),
        ("ntk-critical", 2.0, 304_202),
        ("ntk-critical", 4.0, 925_387),
        ("ntk-critical", 8.0, 2_815_042),
    ],
)
def test_base_is_the_published_rule(kind: str, s: float, theta: float) -> None:
    value = rope(kind, context=round(L * s), factor=s)
    patch = spelled(value)
    assert patch["rope_parameters"]["rope_type"] == "default"
    assert round(patch["rope_parameters"]["rope_theta"]) == theta
    # The figure is rounded to a whole number, so it is good to 2.5e-6 of itself.
    config = build_config(
        "llama", 64, rope_parameters={"rope_type": "default", "rope_theta": float(theta)}
    )
    found = solve(value)
    compare(found.inv_freq, found.attention_factor, tables(config))


@pytest.mark.parametrize("s", [1.5, 2.0, 16.0])
@pytest.mark.parametrize("theta", [1e4, 1e5, 1e6])
def test_critical_pair_stretches_by_the_factor(s: float, theta: float) -> None:
    found = solve(rope("ntk-critical", theta=theta, context=round(L * s), factor=s))
    critical = 32 * math.log(L / (2 * math.pi)) / math.log(theta)  # the index whose wavelength is L
    log_rho = np.interp(critical, np.arange(32), np.log(found.rho))  # rho is geometric in the index
    assert math.exp(log_rho) == pytest.approx(s, rel=1e-9)
    assert (found.rho[math.ceil(critical) :] >= s * (1 - 1e-12)).all()
    assert (found.rho[: math.ceil(critical)] < s).all()


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 32.0), (1.0, 4.0), (0.5, 64.0)])
@pytest.mark.parametrize("s", [2.0, 8.0, 32.0])
def test_ntk_parts_is_the_llama3_ramp(s: float, alpha: float, beta: float) -> None:
    parameters = {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": s,
        "low_freq_factor": alpha,
        "high_freq_factor": beta,
        "original_max_position_embeddings": L,
    }
    config = build_config(
        "llama", 128, rope_parameters=parameters, max_position_embeddings=round(L * s)
    )
    value = rope(
        "ntk-parts", theta=5e5, dim=128, context=round(L * s), factor=s, alpha=alpha, beta=beta
    )
    found = solve(value)
    compare(found.inv_freq, found.attention_factor, tables(config), base=found.base_inv_freq)
    off = solve(
        rope(
            "ntk-parts",
            theta=5e5,
            dim=128,
            context=round(L * s),
            factor=s,
            alpha=alpha,
            beta=beta * 1.05,
        )
    )
    with pytest.raises(AssertionError, match="pair"):
        compare(off.inv_freq, off.attention_factor, tables(config), base=off.base_inv_freq)


def test_paper_yarn_has_the_llama3_ramp_and_the_yarn_magnitude() -> None:
    shared = {"rope_theta": 1e5, "factor": 4.0, "original_max_position_embeddings": L}
    ramp = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 32.0, **shared}
    yarn = {"rope_type": "yarn", **shared}
    inv_freq, _ = tables(
        build_config("llama", 64, rope_parameters=ramp, max_position_embeddings=4 * L)
    )
    code, magnitude = tables(
        build_config("llama", 64, rope_parameters=yarn, max_position_embeddings=4 * L)
    )
    value = rope("yarn", context=4 * L, factor=4.0, ramp="paper")
    found = solve(value)
    compare(found.inv_freq, found.attention_factor, (inv_freq, magnitude), base=found.base_inv_freq)
    # The two ramps part company most at pair 15 with these numbers, by about 1.7.
    assert (code / found.inv_freq).argmax() == 15
    assert (code / found.inv_freq).max() == pytest.approx(1.70, abs=0.01)
    patch = spelled(value)
    assert patch["rope_parameters"]["rope_type"] == "longrope"
    carried = tables(build_config("llama", 64, **patch), length=3 * L)
    compare(found.inv_freq, found.attention_factor, carried)


def test_longrope_has_two_tables_and_one_magnitude() -> None:
    short, long = [1.0 + i / 64 for i in range(32)], [1.0 + i for i in range(32)]
    value = rope("longrope", context=4 * L, short_factor=short, long_factor=long)
    found = solve(value)
    assert found.switch_context == L
    # the paper's rule at s = 4, L = 8192
    assert found.attention_factor == pytest.approx(1.0742, abs=5e-5)
    config = build_config("llama", 64, **spelled(value))
    compare(found.inv_freq, found.attention_factor, tables(config, length=L))
    compare(found.long_inv_freq, found.attention_factor, tables(config, length=L + 1))
    with pytest.raises(AssertionError):
        compare(found.inv_freq, found.attention_factor, tables(config, length=L + 1))


def test_carrier_refuses_what_a_divisor_cannot_say() -> None:
    with pytest.raises(RopeConfigError, match="cannot say frequency 0"):
        carry_as_longrope(rope("proportional", partial_rotary_factor=0.5))
    with pytest.raises(RopeConfigError, match="follows the running length"):
        carry_as_longrope(rope("dynamic", factor=2.0))


def test_scaled_is_told_by_the_numbers() -> None:
    assert not is_scaled(rope("default"))
    assert not is_scaled(rope("linear", factor=1.0))
    assert not is_scaled(rope("proportional", partial_rotary_factor=0.5))
    assert is_scaled(rope("default", context=2 * L))
    assert is_scaled(rope("dynamic", factor=1.0))
    assert is_scaled(rope("yarn", factor=1.0, attention_factor=1.1))
    assert is_scaled(rope("linear", factor=1.0001))


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize(
    ("theta", "original"),
    [(500.0, 131072), (1e4, 131072), (2e4, 131072), (1e4, 64), (1e7, 300), (1e4, 8)],
    ids=["above d/2", "last pair", "just below", "low at 0", "both low", "no full turn"],
)
def test_yarn_bounds_are_clamped_as_in_transformers(
    theta: float, original: int, truncate: bool
) -> None:
    value = rope(
        "yarn", theta=theta, original=original, context=4 * original, factor=4.0, truncate=truncate
    )
    found = solve(value)
    by_hand = {
        "rope_type": "yarn",
        "rope_theta": theta,
        "factor": 4.0,
        "truncate": truncate,
        "original_max_position_embeddings": original,
    }
    config = build_config(
        "llama", 64, rope_parameters=by_hand, max_position_embeddings=4 * original
    )
    compare(found.inv_freq, found.attention_factor, tables(config), base=found.base_inv_freq)


@pytest.mark.parametrize("turns", [1.0, 4.0, 20.0])
def test_yarn_with_one_bound_is_a_step(turns: float) -> None:
    value = rope(
        "yarn", context=4 * L, factor=4.0, beta_fast=turns, beta_slow=turns, truncate=False
    )
    found = solve(value)
    assert set(np.round(found.rho, 9)) == {1.0, 4.0}
    by_hand = {
        "rope_type": "yarn",
        "rope_theta": 1e5,
        "factor": 4.0,
        "beta_fast": turns,
        "beta_slow": turns,
        "truncate": False,
        "original_max_position_embeddings": L,
    }
    config = build_config("llama", 64, rope_parameters=by_hand, max_position_embeddings=4 * L)
    compare(found.inv_freq, found.attention_factor, tables(config), base=found.base_inv_freq)
