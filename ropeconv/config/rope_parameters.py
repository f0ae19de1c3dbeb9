"""config.json <-> one `Rope` a layer type, for both generations of keys.

Newer: `rope_parameters`, one dict or one dict a layer type. Older: `rope_scaling` beside
`rope_theta` and its kin. The meaning is that of transformers 5.23 (`modeling_rope_utils.py` and the
configuration classes); where its answer hangs on which key it happens to prefer, the config is
refused and both values are named.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ropeconv.arch.family import RopeSpelling
from ropeconv.arch.layers import FULL, LAYER_TYPES, STILL
from ropeconv.config._rope_keys import ROPE_KEYS, TopLevel, per_layer_dicts
from ropeconv.errors import RopeConfigError
from ropeconv.rope import _checks
from ropeconv.rope.build import find_kind
from ropeconv.rope.huggingface import find_rope_type, parse_rope
from ropeconv.rope.solve import trained_in_doubt, validate
from ropeconv.rope.spec import Rope, ScalingKind

ORIGINAL = "original_max_position_embeddings"
ROPE_DICTS = ("rope_parameters", "rope_scaling")  # newer first


def read_ropes(
    config: Mapping[str, Any],
    *,
    rotary_sizes: Mapping[str, int],
    spelling: RopeSpelling,
    original_context: int | None = None,
) -> dict[str, Rope | None]:
    """The rope of each layer kind in `rotary_sizes`; None where nothing rotates.

    rotary_sizes: layer kind -> values of a head of which a share rotates. spelling: how the family
    says it. original_context: the trained context L, tokens, where the config does not say; one
    that it contradicts is an error. Raises RopeConfigError for unknown, missing, contradictory or
    out-of-range values.
    """
    top = TopLevel(config, spelling)
    kinds = tuple(rotary_sizes)

    def read_layer(layer: str) -> Rope:
        found: list[tuple[str, Rope]] = []
        for where, stated in per_layer_dicts(config, layer, kinds=kinds, spelling=spelling):
            theta = top.theta(stated, layer, where=where)
            values = spelling.translate(stated, theta, rotary_sizes[layer])
            kind = find_rope_type(values, where=where, yarn_is_longrope=spelling.yarn_is_longrope)
            trained, context, known = _contexts(
                config, values, kind, where=where, spelling=spelling, argument=original_context
            )
            rope = parse_rope(
                values,
                where=where,
                kind=kind,
                head_dim=rotary_sizes[layer],
                theta=values.get("rope_theta", theta),
                partial=top.partial(values, where=where),
                original_context=trained,
                context=context,
            )
            found.append((where, replace(rope, trained_known=known)))
        return _one_answer(found)

    ropes = {layer: None if layer in STILL else read_layer(layer) for layer in kinds}
    if not spelling.takes_partial:
        _refuse_partial(ropes.values())
    return ropes


def _contexts(
    config: Mapping[str, Any],
    values: Mapping[str, Any],
    kind: ScalingKind,
    *,
    where: str,
    spelling: RopeSpelling,
    argument: int | None,
) -> tuple[int, int, bool]:
    """(L, L', whether L was said as such) in tokens: what transformers computes with where the
    kind reads L, else what the config claims.
    """
    for place, holder in (("config.json", config), (where, values)):
        if ORIGINAL in holder:
            _checks.whole(f"{place} {ORIGINAL}", holder[ORIGINAL])
    limit = config.get("max_position_embeddings", spelling.default_context)
    if limit is not None:
        limit = _checks.whole("config.json max_position_embeddings", limit)
    stated = _stated_context(
        config.get(ORIGINAL),
        values.get(ORIGINAL),
        kind,
        where=where,
        nested=spelling.nested,
        limit=limit,
    )
    if argument is not None:
        _check_argument(argument, stated=stated, limit=limit)
        if argument == limit:
            limit = _reached(argument, values, kind)
        stated = argument
    if stated is None and kind.needs_original:
        raise RopeConfigError(
            f"{where}: {kind.name} without {ORIGINAL} would take the extended context for the "
            f"trained one; add it, or give --original-context"
        )
    if limit is None and (stated is None or kind.needs_original):
        raise RopeConfigError("config.json has no max_position_embeddings; add it")
    known = stated is not None
    return stated or limit, limit or stated, known  # type: ignore[return-value]


def _reached(trained: int, values: Mapping[str, Any], kind: ScalingKind) -> int:
    """L', where the user has said that the one length in the config is the trained one."""
    factor = values.get("factor")
    if not kind.static or not isinstance(factor, int | float) or not 1 < factor < math.inf:
        return trained
    return round(trained * factor)


def _check_argument(argument: int, *, stated: int | None, limit: int | None) -> None:
    """RopeConfigError for an --original-context that the config contradicts."""
    _checks.whole("original context", argument)
    if stated is not None and stated != argument:
        raise RopeConfigError(
            f"the checkpoint says trained context {stated}, --original-context {argument}; "
            f"drop the option"
        )
    if limit is not None and argument > limit:
        raise RopeConfigError(
            f"--original-context {argument} is above max_position_embeddings {limit}; lower it"
        )


def _stated_context(
    top: int | None,
    inner: int | None,
    kind: ScalingKind,
    *,
    where: str,
    nested: bool,
    limit: int | None,
) -> int | None:
    if not kind.needs_original:
        if top is not None and inner is not None and top != inner:
            raise RopeConfigError(
                f"{ORIGINAL} is {top} in config.json and {inner} in {where}; keep one"
            )
        return inner if top is None else top
    if not nested:
        return inner if top is None else top  # transformers prefers the outer one here
    if inner is None and top is not None and top != limit:
        raise RopeConfigError(
            f"{where} lacks {ORIGINAL}, and transformers does not read the outer one ({top}); "
            f"move it in"
        )
    return inner


def _one_answer(found: Sequence[tuple[str, Rope]]) -> Rope:
    (where, rope), *others = found
    for elsewhere, other in others:
        for field in (
            "theta",
            "kind",
            "parameters",
            "partial_rotary_factor",
            "original_context",
            "context",
        ):
            mine, theirs = getattr(rope, field), getattr(other, field)
            if mine != theirs:
                name = {"theta": "rope_theta", "kind": "rope_type"}.get(field, field)
                raise RopeConfigError(
                    f"{where} means {name} {mine} and {elsewhere} means {theirs}; keep one of the "
                    f"two, complete"
                )
    return rope


def _refuse_partial(ropes: Iterable[Rope | None]) -> None:
    for rope in ropes:
        if rope is not None and rope.partial_rotary_factor != 1.0:
            share = rope.partial_rotary_factor
            raise RopeConfigError(
                f"this family rotates the whole head; partial_rotary_factor {share:g} must go"
            )


def write_rope_parameters(ropes: Mapping[str, Rope | None], *, nested: bool) -> dict[str, Any]:
    """The config.json keys from which transformers 5.23 computes the frequencies of `ropes`.

    nested: one dict a layer type, else one dict for all. Empty when no layer rotates. Put it into a
    config with `replace_rope_parameters`, which also drops the older keys that would override it.
    Raises RopeConfigError when one config cannot say them all.
    """
    rotating = {layer: rope for layer, rope in ropes.items() if rope is not None}
    if not rotating:
        return {}
    spelled = {}
    for layer, rope in rotating.items():
        validate(rope)
        spelled[layer] = find_kind(rope.kind).huggingface(rope)
    main = rotating.get(FULL) or next(iter(rotating.values()))
    contexts = {layer: rope.context for layer, rope in rotating.items()}
    if len(set(contexts.values())) > 1:
        raise RopeConfigError(
            f"layer types have contexts {contexts}, max_position_embeddings is one; make them equal"
        )
    patch: dict[str, Any] = {"rope_parameters": _nest(spelled) if nested else _flatten(spelled)}
    patch["max_position_embeddings"] = main.context
    # Phi-3's class has a default of its own here and lets it override rope_parameters.
    if find_kind(main.kind).static and not trained_in_doubt(main):
        patch[ORIGINAL] = main.original_context
    return patch


def _flatten(spelled: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    first, *others = spelled.values()
    if any(other != first for other in others):
        raise RopeConfigError(
            f"one rope_parameters cannot say different ropes for {', '.join(spelled)}; nest them"
        )
    return first


def _nest(spelled: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    unknown = [layer for layer in spelled if layer not in LAYER_TYPES]
    if unknown:
        raise RopeConfigError(f"no layer type {unknown[0]!r}; known: {', '.join(LAYER_TYPES)}")
    # transformers looks truncate up beside the layer types, never inside them.
    truncate = {
        inner.get("truncate", True) for inner in spelled.values() if inner["rope_type"] == "yarn"
    }
    if len(truncate) > 1:
        raise RopeConfigError(
            "transformers has one truncate for all layer types; give every yarn rope the same"
        )
    inner = {
        layer: {k: v for k, v in values.items() if k != "truncate"}
        for layer, values in spelled.items()
    }
    return {**inner, "truncate": False} if False in truncate else inner


def replace_rope_parameters(config: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`config` without any RoPE key of either generation, then with `patch`; nothing is changed for
    an empty patch.
    """
    if not patch:
        return dict(config)
    return {**{key: value for key, value in config.items() if key not in ROPE_KEYS}, **patch}
