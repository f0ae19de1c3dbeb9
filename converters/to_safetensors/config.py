"""config.json that transformers 5 and 4, and what reads either's keys, compute the same frequencies
from.

transformers 5 reads `rope_parameters`, and `rope_scaling` over it where that is there; transformers
4 reads `rope_scaling` beside `rope_theta` and its kin at the top level. Both are written, complete
and equal. Sources: modeling_rope_utils.py and the configuration classes of 5.23 and 4.57.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from converters.to_safetensors.carry import Spelling
from ropeconv.arch.layers import FULL, SLIDING
from ropeconv.config.rope_parameters import ROPE_DICTS, read_ropes, replace_rope_parameters
from ropeconv.errors import CannotExpress
from ropeconv.kit.float_types import FLOATS
from ropeconv.model import Model
from ropeconv.rope.magnitude import longrope_magnitude, score_factor
from ropeconv.rope.solve import solve
from ropeconv.rope.spec import Array, Frequencies


def write_config(model: Model, spelling: Spelling, *, dtype: str | None) -> dict[str, Any]:
    """The config of `model` with its rotary embedding for both majors.

    dtype: what the weights are now stored as, where they were rewritten; None leaves the config's
    own. Raises CannotExpress when one of the majors has no place for a part of it.
    """
    patch = dict(spelling.patch)
    config = replace_rope_parameters(model.checkpoint.config, patch)
    if dtype is not None:
        config = {key: value for key, value in config.items() if key != "dtype"} | {
            "torch_dtype": FLOATS[dtype]
        }
    config |= _by_first_name(config, model) | _layer_types(config, model)
    if patch:
        config = _narrow({**config, **_older_keys(model, patch["rope_parameters"])}, model)
    config = _without_vouched(config, model)
    _check_reading(config, model, spelling)
    return config


def _without_vouched(config: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """The config less the keys that the user vouched for: without bearing on logits they are not
    missed, and whoever reads the folder need not take anybody's word for it.
    """
    gone = set(model.checkpoint.vouched)
    kept = {key: value for key, value in config.items() if key not in gone}
    inside = {
        key: {name: value for name, value in kept[key].items() if name not in gone}
        for key in ROPE_DICTS
        if isinstance(kept.get(key), Mapping)
    }
    return kept | inside


def _by_first_name(config: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """Sizes by the name that both majors read, where only a later one is there: 4 does not know 5's
    name for the number of experts, and would take its default.
    """
    found: dict[str, Any] = {}
    for key in model.arch.keys.values():
        stated = [name for name in key.names if name in config]
        if stated and key.names[0] not in config:
            found[key.names[0]] = config[stated[0]]
    return found


def _layer_types(config: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """Kinds of layers by the names that both majors take, where 4 has names of its own."""
    names = model.arch.layers.names_in_4
    stated = config.get("layer_types")
    return {"layer_types": [names.get(kind, kind) for kind in stated]} if names and stated else {}


def _older_keys(model: Model, values: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers 4 reads. Where it has no class for a nested family there is nothing to say,
    and 5's would take a flat `rope_scaling` for the nested one.
    """
    spelling = model.arch.rope
    if not spelling.nested:
        return _older_flat(model, values)
    return {} if spelling.runs_in_4 == () else _older_nested(model, values)


def _older_flat(model: Model, values: Mapping[str, Any]) -> dict[str, Any]:
    spelling = model.arch.rope
    theta = spelling.theta_key
    share = spelling.partial_key
    keys: dict[str, Any] = {theta: values["rope_theta"], "rope_scaling": _older(values)}
    if spelling.takes_partial:
        keys[share] = values["partial_rotary_factor"]
    return keys


def _older_nested(model: Model, values: Mapping[str, Any]) -> dict[str, Any]:
    full = values.get(FULL)
    sliding = values.get(SLIDING)
    keys: dict[str, Any] = {}
    if sliding is not None:
        if sliding["rope_type"] != "default":
            raise CannotExpress(
                f"transformers 4 cannot scale sliding-window layers ({sliding['rope_type']}); "
                f"scale the full-attention ones only"
            )
        own = model.arch.rope.sliding_theta_key
        if own is not None:
            keys[own] = sliding["rope_theta"]
        elif full is not None and full["rope_theta"] != sliding["rope_theta"]:
            raise CannotExpress(
                f"transformers 4's {model.arch.name} has one rope_theta for layers with a window "
                f"({sliding['rope_theta']}) and without ({full['rope_theta']})"
            )
    if full is not None:
        outer = {"truncate": values["truncate"]} if "truncate" in values else {}
        keys |= {"rope_theta": full["rope_theta"], "rope_scaling": _older({**full, **outer})}
    return keys


def _older(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """`rope_scaling` with both names of the type; None where nothing is scaled."""
    return None if values["rope_type"] == "default" else {**values, "type": values["rope_type"]}


def _narrow(config: dict[str, Any], model: Model) -> dict[str, Any]:
    """`rope_scaling` with exactly the fields that transformers 4's class of a strict family takes.

    Where those do not say it all the full dict stays: transformers 4 then refuses the folder
    instead of running it wrong.
    """
    scaling = config.get("rope_scaling")
    strict = model.arch.rope.transformers_4
    fields = None if scaling is None else strict.get(scaling["rope_type"])
    if (
        scaling is None
        or fields is None
        or ("attention_factor" in scaling and not _is_rule(scaling, model))
    ):
        return config
    derived = (
        {"factor", "attention_factor"} - set(fields) if "attention_factor" in scaling else set()
    )
    newer = {key: value for key, value in config["rope_parameters"].items() if key not in derived}
    narrow = {"type": scaling["rope_type"], **{key: scaling[key] for key in fields}}
    return {**config, "rope_parameters": newer, "rope_scaling": narrow}


def _is_rule(scaling: Mapping[str, Any], model: Model) -> bool:
    rope = model.main_rope
    factor = rope.context / rope.original_context
    rule = longrope_magnitude(factor, original_context=rope.original_context)
    return math.isclose(scaling["attention_factor"], rule, rel_tol=1e-12)


def takes_transformers_4(config: Mapping[str, Any], model: Model) -> bool:
    """Whether transformers 4 computes the same from `config`. Where not it refuses to load it, but
    for a class that breaks or scales nothing (`RopeSpelling.runs_in_4`), of which the doctor tells.
    """
    spelling = model.arch.rope
    scaling = config.get("rope_scaling")
    name = "default" if scaling is None else scaling.get("rope_type", scaling.get("type"))
    if model.score_factor != 1.0 and not spelling.scores_in_4:
        return False
    if spelling.runs_in_4 is not None and name not in spelling.runs_in_4:
        return False
    sizes, keys = model.sizes.values(), model.arch.keys
    if any(sizes[size] != keys[size].default for size in model.arch.fixed_in_4):
        return False
    return not spelling.transformers_4 or scaling is None or "rope_type" not in scaling


def _check_reading(config: Mapping[str, Any], model: Model, spelling: Spelling) -> None:
    """What is written means the model's own numbers; a config that its own reader doubts is not
    written.
    """
    layers = model.stack.by_kind
    found = read_ropes(
        config,
        rotary_sizes={kind: layer.mixer.rotary_size for kind, layer in layers.items()},
        spelling=model.arch.rope,
    )
    main = FULL if FULL in found else next(iter(found))
    for layer, rope in found.items():
        wanted = model.frequencies[layer]
        told = spelling.ropes[layer]
        if rope is None or wanted is None or told is None:
            same = rope is None and wanted is None
        else:  # an unscaled embedding beside a scaled one computes with neither length
            lengths = layer != main or (rope.context, rope.original_context) == (
                told.context,
                told.original_context,
            )
            same = lengths and _same(solve(rope), wanted)
            if model.score_factor != 1.0:  # of what another spelling has no place for
                same = same and math.isclose(score_factor(rope), model.score_factor, rel_tol=1e-12)
        if not same:
            raise CannotExpress(
                f"config.json cannot say this {model.main_rope.kind} rope for {layer} layers "
                f"exactly"
            )


def _same(found: Frequencies, wanted: Frequencies) -> bool:
    def close(mine: Array | None, theirs: Array | None) -> bool:
        if mine is None or theirs is None:
            return mine is theirs
        return bool(np.allclose(mine, theirs, rtol=1e-12, atol=0.0))

    magnitudes = math.isclose(found.attention_factor, wanted.attention_factor, rel_tol=1e-12)
    switches = found.switch_context == wanted.switch_context
    return (
        magnitudes
        and switches
        and close(found.inv_freq, wanted.inv_freq)
        and close(found.long_inv_freq, wanted.long_inv_freq)
    )
