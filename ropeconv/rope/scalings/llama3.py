"""Llama 3.1 scaling (transformers `modeling_rope_utils.py`): a ramp linear in turns, no
temperature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ropeconv.errors import RopeConfigError
from ropeconv.rope import _checks
from ropeconv.rope.scalings import _common
from ropeconv.rope.spec import Frequencies, Rope, ScalingKind


@dataclass(frozen=True)
class Llama3Parameters:
    """factor: s. Pairs below low_freq_factor turns in L are divided by s, those above
    high_freq_factor left alone.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float

    def __post_init__(self) -> None:
        names = ("factor", "low_freq_factor", "high_freq_factor")
        _checks.refine(
            self, **{name: _checks.number(f"llama3 {name}", getattr(self, name)) for name in names}
        )
        if self.high_freq_factor <= self.low_freq_factor:
            raise RopeConfigError(
                f"llama3 high_freq_factor {self.high_freq_factor:g} must be above low_freq_factor "
                f"{self.low_freq_factor:g}; swap or mend them"
            )


def _solve(rope: Rope) -> Frequencies:
    p = rope.parameters
    inv_freq = _common.blend_by_turns(
        rope, factor=p.factor, low=p.low_freq_factor, high=p.high_freq_factor
    )
    return _common.scaled(rope, inv_freq)


def _huggingface(rope: Rope) -> dict[str, Any]:
    return {
        **_common.header(rope, "llama3"),
        "factor": rope.parameters.factor,
        "low_freq_factor": rope.parameters.low_freq_factor,
        "high_freq_factor": rope.parameters.high_freq_factor,
        "original_max_position_embeddings": rope.original_context,
    }


def _example(_rope: Rope, _factor: float) -> dict[str, Any]:
    return {"low_freq_factor": 1.0, "high_freq_factor": 4.0}  # Llama 3.1's


SCALING = ScalingKind(
    name="llama3",
    rope_types=("llama3",),
    parameters=Llama3Parameters,
    solve=_solve,
    huggingface=_huggingface,
    by_factor=_common.by_factor_of("llama3"),
    static=True,
    source="transformers modeling_rope_utils.py",
    needs_original=True,
    example=_example,
)
