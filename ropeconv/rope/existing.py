"""A rope that is scaled already: what it was trained as, and how far it reaches."""

from __future__ import annotations

from dataclasses import replace

from ropeconv.errors import RopeConfigError
from ropeconv.rope.build import find_kind
from ropeconv.rope.scalings.default import DefaultParameters
from ropeconv.rope.solve import trained_in_doubt
from ropeconv.rope.spec import Rope, ScalingKind


def unscaled(rope: Rope) -> Rope:
    """The trained rope under an existing scaling; RopeConfigError where the source no longer tells
    it.
    """
    if rope.kind == "default":
        raise RopeConfigError(
            f"the checkpoint reaches {rope.context} tokens from {rope.original_context} by its "
            f"rope_theta "
            f"{rope.theta:g}, and the trained one is not known; use --on-existing compose"
        )
    if find_kind(rope.kind).static:
        _refuse_unknown_trained(rope)
    if rope.kind == "proportional":
        parameters = replace(rope.parameters, factor=1.0)
        return replace(rope, context=rope.original_context, parameters=parameters)
    return replace(
        rope, kind="default", context=rope.original_context, parameters=DefaultParameters()
    )


def reach_of(rope: Rope) -> int:
    """Tokens that the existing scaling reaches: by its factor, where the source still states the
    trained length alone.
    """
    if rope.context != rope.original_context:
        return rope.context
    _refuse_unknown_trained(rope)
    factor = getattr(rope.parameters, "factor", None)
    if factor is None:
        raise RopeConfigError(
            f"the checkpoint is scaled ({rope.kind}) without saying how far it reaches; raise "
            f"max_position_embeddings, or use --on-existing replace"
        )
    return round(rope.original_context * float(factor))


def bare_of(rope: Rope) -> Rope:
    """The trained rope without its scaling, whatever that is."""
    bare = Rope(
        "default",
        rope.theta,
        rope.head_dim,
        rope.original_context,
        rope.original_context,
        DefaultParameters(),
    )
    return replace(bare, partial_rotary_factor=rope.partial_rotary_factor)


def interpolation_of(rope: Rope) -> ScalingKind:
    """Position Interpolation of this rope: one whose slowest pairs stand still has a factor of its
    own, which divides the frequencies of the others alike.
    """
    return find_kind("proportional" if rope.kind == "proportional" else "linear")


def _refuse_unknown_trained(rope: Rope) -> None:
    """RopeConfigError for a scaled rope whose one length may be the trained or the extended one."""
    if trained_in_doubt(rope):
        raise RopeConfigError(
            f"the checkpoint is scaled ({rope.kind}) without saying its trained context; give "
            f"--original-context"
        )
