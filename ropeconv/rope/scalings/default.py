"""No scaling: theta ** (-2i/d) (RoFormer, arXiv 2104.09864)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ropeconv.errors import RopeConfigError
from ropeconv.rope.scalings import _common
from ropeconv.rope.spec import Frequencies, Rope, ScalingKind


@dataclass(frozen=True)
class DefaultParameters:
    """None."""


def _solve(rope: Rope) -> Frequencies:
    return _common.scaled(rope, _common.base_frequencies(rope))


def _huggingface(rope: Rope) -> dict[str, Any]:
    return _common.header(rope, "default")


def _by_factor(_rope: Rope, factor: float, _extra: Mapping[str, Any]) -> Any:
    raise RopeConfigError(
        f"default does not scale, so factor {factor:g} has no meaning; take linear, ntk, yarn, ..."
    )


SCALING = ScalingKind(
    name="default",
    rope_types=("default",),
    parameters=DefaultParameters,
    solve=_solve,
    huggingface=_huggingface,
    by_factor=_by_factor,
    static=True,
    source="arXiv 2104.09864",
    by_factor_alone=False,
)
