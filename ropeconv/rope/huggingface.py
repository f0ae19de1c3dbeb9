"""One Hugging Face `rope_parameters` dict (flat, either generation) to a `Rope`.

Where the dict's neighbours in config.json fill a gap, the caller has done so: theta, partial,
contexts are arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ropeconv import registry
from ropeconv.errors import RopeConfigError, unknown_name
from ropeconv.rope import _checks
from ropeconv.rope.build import make_parameters, parameter_keys
from ropeconv.rope.solve import validate
from ropeconv.rope.spec import Rope, ScalingKind

HEADER = (
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "original_max_position_embeddings",
)
# how the model was trained, which no class reads
SILENT = ("finetuned",)


def find_rope_type(
    values: Mapping[str, Any], *, where: str, yarn_is_longrope: bool = False
) -> ScalingKind:
    """The kind that `rope_type` (or `type`, its older name) means; `default` when neither is there.

    yarn_is_longrope: Phi-3's first configs call LongRoPE "yarn".
    """
    newer, older = values.get("rope_type"), values.get("type")
    if newer is not None and older is not None and newer != older:
        raise RopeConfigError(f"{where} has rope_type {newer!r} and type {older!r}; keep one")
    name = newer if newer is not None else older
    if name is None:
        if "rope_type" in values or "type" in values:
            raise RopeConfigError(f"{where} has a rope_type of null; name one or drop the key")
        name = "default"
    kinds = {
        spelling: kind for kind in registry.scalings().values() for spelling in kind.rope_types
    }
    if not isinstance(name, str) or name not in kinds:
        raise RopeConfigError(f"{where}: {unknown_name('rope_type', str(name), kinds)}")
    kind: ScalingKind = kinds["longrope" if yarn_is_longrope and name == "yarn" else name]
    return kind


def parse_rope(
    values: Mapping[str, Any],
    *,
    where: str,
    kind: ScalingKind,
    head_dim: int,
    theta: Any,
    partial: Any,
    original_context: int,
    context: int,
) -> Rope:
    """A valid Rope from the dict; theta and partial are used where the dict has none.

    Raises RopeConfigError for an unknown key (naming the keys that the kind takes) or a value out
    of range.
    """
    keys = parameter_keys(kind, own=False)
    _refuse_unknown(values, keys, kind, where=where)
    partial = values.get("partial_rotary_factor", partial)
    own = {key: values[key] for key in keys if key in values}
    if "partial_rotary_factor" in keys:  # proportional counts its pairs over the whole head
        own["partial_rotary_factor"] = partial
        partial = 1.0
    try:
        rope = Rope(
            kind=kind.name,
            theta=_checks.number("rope_theta", values.get("rope_theta", theta), above=1.0),
            head_dim=head_dim,
            original_context=original_context,
            context=context,
            parameters=make_parameters(kind, own),
            partial_rotary_factor=_checks.number("partial_rotary_factor", partial),
        )
        validate(rope)
    except RopeConfigError as error:
        raise RopeConfigError(f"{where}: {error}") from error
    return rope


def _refuse_unknown(
    values: Mapping[str, Any], keys: Collection[str], kind: ScalingKind, *, where: str
) -> None:
    for key in values:
        if key not in keys and key not in (*HEADER, *SILENT):
            takes = ", ".join(dict.fromkeys((*keys, *HEADER)))
            raise RopeConfigError(f"{where} has {key!r}; {kind.name} takes: {takes}")
