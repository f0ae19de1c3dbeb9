"""A trained rope given the values of a user's `rope_parameters`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ropeconv.errors import RopeConfigError
from ropeconv.rope.build import parameter_keys
from ropeconv.rope.huggingface import find_rope_type, parse_rope
from ropeconv.rope.spec import Rope, ScalingKind

WHERE = "rope_parameters"


def build_from_huggingface(
    rope: Rope, values: Mapping[str, Any], *, factor: float, context: int
) -> Rope:
    """`rope`, which is unscaled, as `values` have it; RopeConfigError where they contradict it."""
    kind = find_rope_type(values, where=WHERE)
    if (rope.kind == "proportional") != (kind.name == "proportional"):
        raise RopeConfigError(
            f"{WHERE}: a {rope.kind} rope cannot be scaled as {kind.name}; keep its rope_type"
        )
    own = (
        rope.parameters.partial_rotary_factor
        if rope.kind == "proportional"
        else rope.partial_rotary_factor
    )
    _refuse_contradictions(rope, values, kind, partial=own)
    if "factor" in parameter_keys(kind):
        values = {**values, "factor": factor}
    return parse_rope(
        values,
        where=WHERE,
        kind=kind,
        head_dim=rope.head_dim,
        theta=rope.theta,
        partial=own,
        original_context=rope.original_context,
        context=context,
    )


def _refuse_contradictions(
    rope: Rope, values: Mapping[str, Any], kind: ScalingKind, *, partial: float
) -> None:
    """RopeConfigError for a value that is not the trained one, and for a default that changes
    nothing.
    """
    trained = {
        "original_max_position_embeddings": rope.original_context,
        "partial_rotary_factor": partial,
    }
    if kind.name != "default":
        # a default with another theta is a changed base, a method of its own
        trained["rope_theta"] = rope.theta
    for key, value in trained.items():
        if values.get(key, value) != value:
            raise RopeConfigError(
                f"{WHERE}: {key} is {values[key]}, the checkpoint's is {value}; drop the key"
            )
    if kind.name == "default" and values.get("rope_theta", rope.theta) == rope.theta:
        raise RopeConfigError(
            f"{WHERE}: default with the checkpoint's own rope_theta scales nothing; change either"
        )
