"""YaRN: NTK-by-parts plus a temperature (arXiv 2309.00071).

Two ramps go by this name. "code", which every implementation runs, is linear in the pair index
(transformers `modeling_rope_utils.py`); "paper" is linear in turns, and no Hugging Face `yarn`
spelling exists for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ropeconv.errors import RopeConfigError
from ropeconv.rope import _checks
from ropeconv.rope.build import OWN
from ropeconv.rope.carry import carry_as_longrope
from ropeconv.rope.magnitude import yarn_magnitude
from ropeconv.rope.scalings import _common, longrope
from ropeconv.rope.spec import Array, Frequencies, Rope, ScalingKind

RAMPS = ("code", "paper")


@dataclass(frozen=True)
class YarnParameters:
    """factor: s, None for L'/L. beta_fast, beta_slow: turns in L above which pairs stay, below
    which they are divided.

    attention_factor: m; None derives it from mscale and mscale_all_dim (both, neither 0) or from
    the factor alone. truncate: round the ramp's bounds outwards to whole pairs (code ramp).
    """

    factor: float | None
    attention_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    ramp: str = field(default="code", metadata=OWN)

    def __post_init__(self) -> None:
        above_zero = ("factor", "attention_factor", "beta_fast", "beta_slow")
        checked = {
            name: _checks.optional_number(f"yarn {name}", getattr(self, name))
            for name in above_zero
        }
        for name in ("mscale", "mscale_all_dim"):  # 0 means absent in transformers
            value = getattr(self, name)
            absent = value is None or (value == 0 and not isinstance(value, bool))
            checked[name] = None if absent else _checks.number(f"yarn {name}", value)
        _checks.refine(self, **checked, truncate=_checks.flag("yarn truncate", self.truncate))
        if self.ramp not in RAMPS:
            raise RopeConfigError(f"yarn ramp is {self.ramp!r}; give one of: {', '.join(RAMPS)}")
        slow, fast = self.turns
        if fast < slow or (fast == slow and self.ramp == "paper"):
            raise RopeConfigError(
                f"yarn beta_fast {fast:g} must be above beta_slow {slow:g}; swap or mend them"
            )
        if self.ramp == "paper" and not self.truncate:
            raise RopeConfigError(
                "yarn truncate=false rounds nothing on the paper ramp; leave truncate out"
            )

    @property
    def turns(self) -> tuple[float, float]:
        """(beta_slow, beta_fast) with their defaults 1 and 32 in place."""
        return self.beta_slow or 1.0, self.beta_fast or 32.0


def _factor(rope: Rope) -> float:
    given = rope.parameters.factor
    return float(rope.context / rope.original_context if given is None else given)


def _attention_factor(rope: Rope) -> float:
    p = rope.parameters
    factor = _factor(rope)
    if p.attention_factor is not None:
        return float(p.attention_factor)

    if p.mscale and p.mscale_all_dim:
        every = yarn_magnitude(factor, mscale=p.mscale_all_dim)
        return yarn_magnitude(factor, mscale=p.mscale) / every
    return yarn_magnitude(factor)


def _pair_of(rope: Rope, turns: float) -> float:
    """The (fractional) pair index that makes `turns` turns in L."""
    return (rope.rotary_dim * math.log(rope.original_context / (turns * 2 * math.pi))) / (
        2 * math.log(rope.theta)
    )


def _code_ramp(rope: Rope) -> Array:
    """(d/2,) share of interpolation: 0 for fast pairs, 1 for slow ones, linear in the index
    between.
    """
    slow, fast = rope.parameters.turns
    low, high = _pair_of(rope, fast), _pair_of(rope, slow)
    if rope.parameters.truncate:
        low, high = math.floor(low), math.ceil(high)
    # The upper clamp is d - 1, not the last pair d/2 - 1: that is what transformers does.
    low, high = max(low, 0), min(high, rope.rotary_dim - 1)
    if low == high:
        high += 0.001
    return np.clip(
        (np.arange(rope.rotary_dim // 2, dtype=np.float64) - low) / (high - low), 0.0, 1.0
    )


def _solve(rope: Rope) -> Frequencies:
    factor = _factor(rope)
    if rope.parameters.ramp == "paper":
        slow, fast = rope.parameters.turns
        inv_freq = _common.blend_by_turns(rope, factor=factor, low=slow, high=fast)
    else:
        base = _common.base_frequencies(rope)
        ramp = _code_ramp(rope)
        inv_freq = base / factor * ramp + base * (1.0 - ramp)
    return _common.scaled(rope, inv_freq, attention_factor=_attention_factor(rope))


def _huggingface(rope: Rope) -> dict[str, Any]:
    p = rope.parameters
    if p.ramp == "paper":
        return longrope.SCALING.huggingface(carry_as_longrope(rope))
    slow, fast = p.turns
    magnitudes = {"mscale": p.mscale, "mscale_all_dim": p.mscale_all_dim}
    return {
        **_common.header(rope, "yarn"),
        "factor": _factor(rope),
        "attention_factor": _attention_factor(rope),
        "beta_fast": fast,
        "beta_slow": slow,
        **{key: value for key, value in magnitudes.items() if value is not None},
        **({} if p.truncate else {"truncate": False}),
        "original_max_position_embeddings": rope.original_context,
    }


SCALING = ScalingKind(
    name="yarn",
    rope_types=("yarn",),
    parameters=YarnParameters,
    solve=_solve,
    huggingface=_huggingface,
    by_factor=_common.by_factor_of("yarn"),
    static=True,
    source="arXiv 2309.00071",
    needs_original=True,
)
