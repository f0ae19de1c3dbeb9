"""Choosing how config.json says the rotary embedding: transformers' own spelling of the kind, else
divisors as LongRoPE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ropeconv.config.patch import CARRIER, spell_ropes
from ropeconv.errors import CannotExpress, RopeConfigError
from ropeconv.model import Model, main_of
from ropeconv.rope.build import find_kind
from ropeconv.rope.carry import carry_as_longrope
from ropeconv.rope.spec import Rope
from ropeconv.target import Carried

# rope_type values that transformers 4.57 and 5 both compute
BOTH_MAJORS = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")


@dataclass(frozen=True)
class Spelling:
    """ropes: as they will be written, by layer type. patch: transformers 5's keys for them."""

    ropes: Mapping[str, Rope | None]
    patch: Mapping[str, Any]
    carried: Carried


def carry(model: Model, bake: str = "auto") -> Spelling:
    """The spelling of `model`'s rotary embedding. bake: "auto", "metadata" (the kind's own name) or
    "tables" (divisors).

    Raises CannotExpress with the reason; nothing has been opened for writing by then.
    """
    ropes = {
        layer: None if rope is None else _spell(rope, model, bake)
        for layer, rope in model.ropes.items()
    }
    name = _rope_type(main_of(ropes))
    if model.main_rope.kind != "longrope" and name == "longrope":
        carried = Carried("tables", "a divisor for each rotary pair, as LongRoPE with one table")
    elif name == "default":
        carried = Carried("metadata", "the base says it all")
    else:
        carried = Carried("metadata", f"transformers' own {name}")
    return Spelling(ropes, spell_ropes(model, ropes), carried)


def _both(model: Model) -> tuple[str, ...]:
    """rope_type values that every major computes that has a class for the family."""
    spelling = model.arch.rope
    if spelling.runs_in_4 == () and spelling.rope_types is not None:
        return spelling.rope_types
    return BOTH_MAJORS


def _spell(rope: Rope, model: Model, bake: str) -> Rope:
    both = _both(model)
    known = model.arch.rope.rope_types or both
    name = _rope_type(rope)
    changed = name == "default" != rope.kind
    accepted = tuple(
        other
        for other in both
        if other in known and not (changed and other == "default" and _one_theta(model))
    )
    if (
        bake != "tables"
        and name in accepted
        and not (bake == "metadata" and name == "longrope" != rope.kind)
    ):
        return rope
    if bake == "metadata":
        raise CannotExpress(
            f"transformers' {model.arch.name} has no rope_type for {rope.kind} in both majors (it "
            f"has {', '.join(accepted)}); "
            f"leave --bake out to write divisors as LongRoPE"
        )
    if bake == "tables" and name == "default" and rope.context == rope.original_context:
        return rope  # an unscaled embedding has no divisors to write
    if CARRIER not in known:
        raise CannotExpress(
            f"transformers' {model.arch.name} loads no divisors (as {CARRIER}); leave --bake out"
        )
    try:
        return carry_as_longrope(rope)
    except RopeConfigError as error:
        raise CannotExpress(f"transformers' {model.arch.name} in both majors: {error}") from error


def _one_theta(model: Model) -> bool:
    """Whether transformers 4 has one base for layers that have a rope each, and divisors can say
    another.
    """
    spelling = model.arch.rope
    return spelling.nested and spelling.sliding_theta_key is None and CARRIER in _both(model)


def _rope_type(rope: Rope) -> str:
    return str(find_kind(rope.kind).huggingface(rope)["rope_type"])
