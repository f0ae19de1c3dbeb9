"""What transformers is told of a model's rotary embedding: the keys that replace those of its
config.json.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ropeconv.config.rope_parameters import write_rope_parameters
from ropeconv.errors import RopeConfigError
from ropeconv.model import Model
from ropeconv.rope.build import find_kind
from ropeconv.rope.carry import carry_as_longrope
from ropeconv.rope.spec import Rope

CARRIER = "longrope"  # says every static scaling


def huggingface_patch(model: Model) -> dict[str, Any]:
    """The config.json keys from which transformers computes this model's frequencies.

    A kind that the family's transformers class rejects is spelled as LongRoPE with one table, which
    every other class takes.
    """
    return spell_ropes(model, sayable_ropes(model))


def sayable_ropes(model: Model) -> dict[str, Rope | None]:
    """The model's ropes as kinds that its transformers class takes; RopeConfigError where it takes
    none that computes them, so that nothing could prove what is written.
    """
    return {layer: _acceptable(rope, model) for layer, rope in model.ropes.items()}


def spell_ropes(model: Model, ropes: Mapping[str, Rope | None]) -> dict[str, Any]:
    """The config.json keys of `ropes` by layer kind, as the model's class reads them, beside what
    other parts of the model read in the same dict.
    """
    spelling = model.arch.rope
    patch = write_rope_parameters(ropes, nested=spelling.nested)
    if patch and spelling.kept:
        patch["rope_parameters"] |= _kept(model.checkpoint.config, spelling.kept)
    if patch and spelling.needs_head_dim:
        patch["head_dim"] = model.sizes.head_dim
    return patch


def _kept(config: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """Keys of the source's rope dict that are no rope's."""
    found = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    return {key: found[key] for key in keys if key in found}


def _acceptable(rope: Rope | None, model: Model) -> Rope | None:
    accepted = model.arch.rope.rope_types
    if rope is None or accepted is None:
        return rope
    name = find_kind(rope.kind).huggingface(rope)["rope_type"]
    if name in accepted:
        return rope
    if CARRIER not in accepted:
        raise RopeConfigError(
            f"transformers does not load a {model.arch.name} with rope_type {name}, so that "
            f"nothing could prove {rope.spoken} scaling; take one of: {', '.join(accepted)}"
        )
    return carry_as_longrope(rope)
