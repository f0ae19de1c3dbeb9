"""p-RoPE: the slowest pairs do not rotate at all (transformers `modeling_rope_utils.py`).

Exponents run over the whole head and the pairs past partial_rotary_factor have frequency 0, so the
table covers the head: `Rope.partial_rotary_factor` is 1 here and the proportion is a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropeconv.errors import RopeConfigError
from ropeconv.rope import _checks
from ropeconv.rope.scalings import _common
from ropeconv.rope.spec import Frequencies, Rope, ScalingKind


@dataclass(frozen=True)
class ProportionalParameters:
    """partial_rotary_factor: share of the pairs that rotate, (0, 1]. factor: divides every
    frequency.
    """

    partial_rotary_factor: float = 1.0
    factor: float = 1.0

    def __post_init__(self) -> None:
        share = _checks.number("proportional partial_rotary_factor", self.partial_rotary_factor)
        if share > 1.0:
            raise RopeConfigError(
                f"proportional partial_rotary_factor is {share:g}; give a number up to 1"
            )
        _checks.refine(
            self,
            partial_rotary_factor=share,
            factor=_checks.number("proportional factor", self.factor),
        )


def _rotating(rope: Rope) -> int:
    return int(rope.parameters.partial_rotary_factor * rope.head_dim // 2)


def _check(rope: Rope) -> None:
    if rope.partial_rotary_factor != 1.0:
        raise RopeConfigError(
            f"proportional spreads its frequencies over the whole head; a rope that rotates "
            f"{rope.partial_rotary_factor:g} of it cannot become one; take another kind"
        )
    if _rotating(rope) < 1:
        share = rope.parameters.partial_rotary_factor
        raise RopeConfigError(
            f"proportional partial_rotary_factor {share:g} rotates no pair of {rope.head_dim // 2}"
        )


def _solve(rope: Rope) -> Frequencies:
    inv_freq = _common.base_frequencies(rope) / rope.parameters.factor
    return _common.scaled(
        rope, np.where(np.arange(rope.head_dim // 2) < _rotating(rope), inv_freq, 0.0)
    )


def _huggingface(rope: Rope) -> dict[str, Any]:
    return {
        **_common.header(rope, "proportional"),
        "partial_rotary_factor": rope.parameters.partial_rotary_factor,
        "factor": rope.parameters.factor,
    }


def _by_factor(rope: Rope, factor: float, extra: Mapping[str, Any]) -> Any:
    # The share of rotating pairs belongs to the trained model; scaling keeps it.
    share = rope.parameters.partial_rotary_factor if rope.kind == "proportional" else 1.0
    given = extra.get("partial_rotary_factor", share)
    if given != share:
        raise RopeConfigError(
            f"partial_rotary_factor {given} would change the trained share {share:g}; leave it out"
        )
    return _common.by_factor_of("proportional")(
        rope, factor, {**extra, "partial_rotary_factor": share}
    )


SCALING = ScalingKind(
    name="proportional",
    rope_types=("proportional",),
    parameters=ProportionalParameters,
    solve=_solve,
    huggingface=_huggingface,
    by_factor=_by_factor,
    static=True,
    source="transformers modeling_rope_utils.py",
    check=_check,
    by_factor_alone=False,
)
