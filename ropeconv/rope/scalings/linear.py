"""Position Interpolation: every frequency divided by the factor (arXiv 2306.15595)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ropeconv.rope import _checks
from ropeconv.rope.scalings import _common
from ropeconv.rope.spec import Frequencies, Rope, ScalingKind


@dataclass(frozen=True)
class LinearParameters:
    """factor: s = L'/L."""

    factor: float

    def __post_init__(self) -> None:
        _checks.refine(self, factor=_checks.number("linear factor", self.factor))


def _solve(rope: Rope) -> Frequencies:
    return _common.scaled(rope, _common.base_frequencies(rope) / rope.parameters.factor)


def _huggingface(rope: Rope) -> dict[str, Any]:
    return {**_common.header(rope, "linear"), "factor": rope.parameters.factor}


SCALING = ScalingKind(
    name="linear",
    rope_types=("linear",),
    parameters=LinearParameters,
    solve=_solve,
    huggingface=_huggingface,
    by_factor=_common.by_factor_of("linear"),
    static=True,
    source="arXiv 2306.15595",
    spoken="pi",
)
