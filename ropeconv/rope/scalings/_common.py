"""What several kinds share: the unscaled frequencies, the ramp over turns, and the Hugging Face
header.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ropeconv.errors import RopeConfigError
from ropeconv.rope.build import find_kind, make_parameters
from ropeconv.rope.spec import Array, Frequencies, Rope


def base_frequencies(rope: Rope, *, theta: float | None = None) -> Array:
    """(d/2,) theta ** (-2i/d) radians per token; `theta` replaces the rope's own base."""
    d = rope.rotary_dim
    base = rope.theta if theta is None else theta
    with np.errstate(over="ignore", divide="ignore"):
        return np.asarray(
            1.0 / base ** (np.arange(0, d, 2, dtype=np.float64) / d), dtype=np.float64
        )


def stretched_theta(
    rope: Rope, *, by: float = 1.0, power: float = 1.0, exponent: float = 1.0
) -> float:
    """theta ** exponent * by ** power; RopeConfigError when no float holds it."""
    try:
        theta = float(rope.theta**exponent * by**power)
    except OverflowError:
        theta = math.inf
    if not math.isfinite(theta):
        raise RopeConfigError(
            f"{rope.kind} makes rope_theta {rope.theta:g} too large for a float; lower the factor"
        )
    return theta


def scaled(rope: Rope, inv_freq: Array, *, attention_factor: float = 1.0) -> Frequencies:
    """Frequencies with one table."""
    return Frequencies(
        inv_freq=inv_freq, base_inv_freq=base_frequencies(rope), attention_factor=attention_factor
    )


def blend_by_turns(rope: Rope, *, factor: float, low: float, high: float) -> Array:
    """(d/2,) NTK-by-parts: pairs with fewer than `low` turns in L divided by factor, those above
    `high` left alone.

    Linear in the number of turns r = L / wavelength between the two (arXiv 2309.00071, section
    3.2).
    """
    inv_freq = base_frequencies(rope)
    turns = rope.original_context * inv_freq / (2.0 * np.pi)
    keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return np.asarray((1.0 - keep) * inv_freq / factor + keep * inv_freq, dtype=np.float64)


def header(rope: Rope, rope_type: str, *, theta: float | None = None) -> dict[str, Any]:
    """The keys that every Hugging Face `rope_parameters` has.

    partial_rotary_factor is always written: some config classes put 0.25 where the key is missing.
    """
    return {
        "rope_type": rope_type,
        "rope_theta": float(rope.theta if theta is None else theta),
        "partial_rotary_factor": float(rope.partial_rotary_factor),
    }


def need_four_dimensions(rope: Rope) -> None:
    """The base exponent d / (d - 2) needs d of at least 4."""
    if rope.rotary_dim < 4:
        raise RopeConfigError(
            f"{rope.kind} needs at least 4 rotary dimensions, not {rope.rotary_dim}; take linear"
        )


def by_factor_of(name: str) -> Callable[[Rope, float, Mapping[str, Any]], Any]:
    """`ScalingKind.by_factor` for kinds whose parameters are `factor` and optional others."""

    def by_factor(rope: Rope, factor: float, extra: Mapping[str, Any]) -> Any:
        if "factor" in extra:
            raise RopeConfigError(
                f"{name}: factor is given twice; drop it from the extra parameters"
            )
        if rope.kind == "proportional" and name != "proportional":
            raise RopeConfigError(
                f"a proportional rope can only be scaled as proportional, not as {name}"
            )
        return make_parameters(find_kind(name), {"factor": factor, **extra})

    return by_factor
