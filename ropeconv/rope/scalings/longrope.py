"""LongRoPE: one divisor a pair, short ones up to L and long ones past it (arXiv 2402.13753).

The magnitude, when not given, is sqrt(1 + ln s / ln L), the same for both tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropeconv.errors import RopeConfigError
from ropeconv.rope import _checks
from ropeconv.rope.magnitude import longrope_magnitude
from ropeconv.rope.scalings import _common
from ropeconv.rope.spec import Frequencies, Rope, ScalingKind


@dataclass(frozen=True)
class LongropeParameters:
    """short_factor, long_factor: d/2 divisors each. factor: s, None = L'/L. attention_factor: m,
    None = the rule.
    """

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    factor: float | None = None
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        _checks.refine(
            self,
            short_factor=_checks.numbers("longrope short_factor", self.short_factor),
            long_factor=_checks.numbers("longrope long_factor", self.long_factor),
            factor=_checks.optional_number("longrope factor", self.factor),
            attention_factor=_checks.optional_number(
                "longrope attention_factor", self.attention_factor
            ),
        )


def _check(rope: Rope) -> None:
    pairs = rope.rotary_dim // 2
    for name in ("short_factor", "long_factor"):
        count = len(getattr(rope.parameters, name))
        if count != pairs:
            raise RopeConfigError(
                f"longrope {name} has {count} numbers for {pairs} rotary pairs; give one a pair"
            )
    if rope.parameters.attention_factor is None and rope.original_context < 2:
        raise RopeConfigError(
            "longrope needs a trained context of 2 tokens or more, or attention_factor; give one"
        )


def _factor(rope: Rope) -> float:
    given = rope.parameters.factor
    return float(rope.context / rope.original_context if given is None else given)


def _attention_factor(rope: Rope) -> float:
    if rope.parameters.attention_factor is not None:
        return float(rope.parameters.attention_factor)
    return longrope_magnitude(_factor(rope), original_context=rope.original_context)


def _solve(rope: Rope) -> Frequencies:
    base = _common.base_frequencies(rope)
    p = rope.parameters
    one_table = p.short_factor == p.long_factor
    return Frequencies(
        inv_freq=base / np.asarray(p.short_factor, dtype=np.float64),
        base_inv_freq=base,
        attention_factor=_attention_factor(rope),
        long_inv_freq=None if one_table else base / np.asarray(p.long_factor, dtype=np.float64),
        switch_context=None if one_table else rope.original_context,
    )


def _huggingface(rope: Rope) -> dict[str, Any]:
    return {
        **_common.header(rope, "longrope"),
        "short_factor": list(rope.parameters.short_factor),
        "long_factor": list(rope.parameters.long_factor),
        "factor": _factor(rope),
        "attention_factor": _attention_factor(rope),
        "original_max_position_embeddings": rope.original_context,
    }


def _by_factor(rope: Rope, factor: float, extra: Mapping[str, Any]) -> Any:
    if "long_factor" not in extra or "short_factor" not in extra:
        raise RopeConfigError(
            "longrope needs short_factor and long_factor, one number a pair; give --rope-parameters"
        )
    return _common.by_factor_of("longrope")(rope, factor, extra)


def _example(rope: Rope, factor: float) -> dict[str, Any]:
    pairs = rope.rotary_dim // 2
    return {"short_factor": [1.0] * pairs, "long_factor": np.linspace(1.0, factor, pairs).tolist()}


SCALING = ScalingKind(
    name="longrope",
    rope_types=("longrope", "su"),
    parameters=LongropeParameters,
    solve=_solve,
    huggingface=_huggingface,
    by_factor=_by_factor,
    static=True,
    source="arXiv 2402.13753",
    check=_check,
    needs_original=True,
    by_factor_alone=False,
    example=_example,
)
