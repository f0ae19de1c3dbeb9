"""Critical-dimension base: theta' = theta ** log_{L/2pi}(L'/2pi) (arXiv 2310.05209).

The pair whose wavelength is exactly L gets the wavelength L', and every slower pair at least that
stretch. LongRoPE2 calls this rule "NTK"; it is not NTK-aware scaling, which gives a smaller base.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ropeconv.errors import RopeConfigError
from ropeconv.rope import _checks
from ropeconv.rope.scalings import _common
from ropeconv.rope.spec import Frequencies, Rope, ScalingKind


@dataclass(frozen=True)
class NtkCriticalParameters:
    """factor: s = L'/L."""

    factor: float

    def __post_init__(self) -> None:
        _checks.refine(self, factor=_checks.number("ntk-critical factor", self.factor))


def _check(rope: Rope) -> None:
    short = min(rope.original_context, rope.original_context * rope.parameters.factor)
    if short <= 2.0 * math.pi:
        raise RopeConfigError(
            f"ntk-critical needs contexts above 2 pi tokens, not {short:g}; take ntk"
        )


def _theta(rope: Rope) -> float:
    window = rope.original_context / (2.0 * math.pi)
    return _common.stretched_theta(
        rope, exponent=math.log(window * rope.parameters.factor) / math.log(window)
    )


def _solve(rope: Rope) -> Frequencies:
    return _common.scaled(rope, _common.base_frequencies(rope, theta=_theta(rope)))


def _huggingface(rope: Rope) -> dict[str, Any]:
    return _common.header(rope, "default", theta=_theta(rope))


SCALING = ScalingKind(
    name="ntk-critical",
    rope_types=(),
    parameters=NtkCriticalParameters,
    solve=_solve,
    huggingface=_huggingface,
    by_factor=_common.by_factor_of("ntk-critical"),
    static=True,
    source="arXiv 2310.05209",
    check=_check,
)
