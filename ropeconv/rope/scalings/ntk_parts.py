"""NTK-by-parts with the paper's ramp, linear in turns, and no temperature (arXiv 2309.00071,
section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ropeconv.errors import RopeConfigError
from ropeconv.rope import _checks
from ropeconv.rope.scalings import _common
from ropeconv.rope.spec import Frequencies, Rope, ScalingKind


@dataclass(frozen=True)
class NtkPartsParameters:
    """factor: s = L'/L. Pairs below `alpha` turns in L are divided by s, those above `beta` turns
    are left alone.
    """

    factor: float
    alpha: float = 1.0
    beta: float = 32.0

    def __post_init__(self) -> None:
        names = ("factor", "alpha", "beta")
        _checks.refine(
            self,
            **{name: _checks.number(f"ntk-parts {name}", getattr(self, name)) for name in names},
        )
        if self.beta <= self.alpha:
            raise RopeConfigError(
                f"ntk-parts beta {self.beta:g} must be above alpha {self.alpha:g}; swap or mend "
                f"them"
            )


def _solve(rope: Rope) -> Frequencies:
    p = rope.parameters
    return _common.scaled(
        rope, _common.blend_by_turns(rope, factor=p.factor, low=p.alpha, high=p.beta)
    )


def _huggingface(rope: Rope) -> dict[str, Any]:
    # Llama 3 scaling is the same ramp under other names.
    return {
        **_common.header(rope, "llama3"),
        "factor": rope.parameters.factor,
        "low_freq_factor": rope.parameters.alpha,
        "high_freq_factor": rope.parameters.beta,
        "original_max_position_embeddings": rope.original_context,
    }


SCALING = ScalingKind(
    name="ntk-parts",
    rope_types=(),
    parameters=NtkPartsParameters,
    solve=_solve,
    huggingface=_huggingface,
    by_factor=_common.by_factor_of("ntk-parts"),
    static=True,
    source="arXiv 2309.00071",
    needs_original=True,
)
