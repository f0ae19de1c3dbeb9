"""Dynamic NTK: the base follows the running length l (transformers `modeling_rope_utils.py`).

theta(l) = theta (f l/L - (f - 1))^(d/(d-2)) once l > L, else theta. L is `max_position_embeddings`
in transformers, so a dynamic rope has no target length of its own: context = original_context.
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
class DynamicParameters:
    """factor: f, how fast the base grows with the length; 1 is the rule of the YaRN paper."""

    factor: float

    def __post_init__(self) -> None:
        _checks.refine(self, factor=_checks.number("dynamic factor", self.factor))


def _check(rope: Rope) -> None:
    _common.need_four_dimensions(rope)
    if rope.context != rope.original_context:
        raise RopeConfigError(
            f"dynamic takes max_position_embeddings as its trained context, so {rope.context} "
            f"beside "
            f"{rope.original_context} is two answers; set both to the trained context"
        )


def _solve_at(rope: Rope, length: int) -> Frequencies:
    d = rope.rotary_dim
    f = rope.parameters.factor
    length = max(length, rope.original_context)
    growth = (f * length / rope.original_context) - (f - 1.0)
    theta = _common.stretched_theta(rope, by=growth, power=d / (d - 2))
    return _common.scaled(rope, _common.base_frequencies(rope, theta=theta))


def _solve(rope: Rope) -> Frequencies:
    return _common.scaled(rope, _common.base_frequencies(rope))


def _frozen_advice(rope: Rope) -> str:
    """The NTK base that this kind would have at a whole length, twice the trained one or more."""
    s = float(rope.parameters.factor)
    length = math.floor(rope.original_context * s) if s >= 1.5 else 2 * rope.original_context
    growth = s * length / rope.original_context - (s - 1)
    return (
        f"freeze it at {length} tokens with --scaling ntk --factor {growth!r} --context {length} "
        f"(and --on-existing replace where the config says dynamic)"
    )


def _huggingface(rope: Rope) -> dict[str, Any]:
    return {**_common.header(rope, "dynamic"), "factor": rope.parameters.factor}


SCALING = ScalingKind(
    name="dynamic",
    rope_types=("dynamic",),
    parameters=DynamicParameters,
    solve=_solve,
    huggingface=_huggingface,
    by_factor=_common.by_factor_of("dynamic"),
    static=False,
    source="transformers modeling_rope_utils.py",
    check=_check,
    solve_at=_solve_at,
    frozen_advice=_frozen_advice,
)
