"""NTK-aware scaling with a fixed base: theta' = theta s^(d/(d-2)) (arXiv 2309.00071, section 3.1).

The last pair is interpolated by s and the first left alone. Some pairs between are stretched by
less than their range needs, so the length that is reached falls short of s L; that is why this kind
takes a factor above L'/L.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ropeconv.rope import _checks
from ropeconv.rope.scalings import _common
from ropeconv.rope.spec import Frequencies, Rope, ScalingKind


@dataclass(frozen=True)
class NtkParameters:
    """factor: s, at least L'/L."""

    factor: float

    def __post_init__(self) -> None:
        _checks.refine(self, factor=_checks.number("ntk factor", self.factor))


def _theta(rope: Rope) -> float:
    d = rope.rotary_dim
    return _common.stretched_theta(rope, by=rope.parameters.factor, power=d / (d - 2))


def _solve(rope: Rope) -> Frequencies:
    return _common.scaled(rope, _common.base_frequencies(rope, theta=_theta(rope)))


def _huggingface(rope: Rope) -> dict[str, Any]:
    # transformers has no rope_type for a fixed NTK base: it is an unscaled rope with another theta.
    return _common.header(rope, "default", theta=_theta(rope))


SCALING = ScalingKind(
    name="ntk",
    rope_types=(),
    parameters=NtkParameters,
    solve=_solve,
    huggingface=_huggingface,
    by_factor=_common.by_factor_of("ntk"),
    static=True,
    source="arXiv 2309.00071",
    check=_common.need_four_dimensions,
    nominal=True,
)
