"""`read_ropes` for a family of rope_reference.py, spelt as transformers' config class spells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ropeconv.arch.family import RopeSpelling
from ropeconv.config.rope_parameters import read_ropes
from ropeconv.rope.spec import Rope
from tests.rope.rope_reference import FAMILIES

OTHER_KEYS = {"gpt_neox": {"theta_key": "rotary_emb_base", "partial_key": "rotary_pct"}}


def read_family(
    name: str,
    config: Mapping[str, Any],
    head_dim: int,
    *,
    original_context: int | None = None,
    yarn_is_longrope: bool = False,
    takes_partial: bool = True,
    nested: bool | None = None,
) -> dict[str, Rope | None]:
    """The ropes of a config of the family called `name`."""
    family = FAMILIES[name]
    spelling = RopeSpelling(
        default_theta=family.default_theta,
        default_partial=family.default_partial,
        nested=family.nested if nested is None else nested,
        takes_partial=takes_partial,
        rope_types=("default", "longrope") if yarn_is_longrope else None,
        **OTHER_KEYS.get(name, {}),
    )
    sizes = dict.fromkeys(family.layers, head_dim)
    return read_ropes(
        config, rotary_sizes=sizes, spelling=spelling, original_context=original_context
    )
