"""Traps of config.json that transformers itself falls into: T1 to T15, one function each, and the
table of them.

The effects are those of transformers 5.23 (`modeling_rope_utils.py`), transformers 4.57 and the
runtimes that are named. T4, T5, T7 and T10 are in length_traps.py, T12 to T14 with the target that
knows single classes. T3 (a config changed after its model was built) is one of running programs: no
file shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ropeconv import registry
from ropeconv.arch.family import THETA_KEYS, Architecture
from ropeconv.arch.uncovered import DROPS_CACHE, NEVER_READ, UNREACHABLE
from ropeconv.doctor.case import (
    Case,
    edit_dicts,
    kind_of,
    without,
)
from ropeconv.finding import ERROR, NOTE, WARNING, Finding, Values

ROPE_KEYS = ("rope_parameters", "rope_scaling", "rope_theta", "rope_local_base_freq")


def _lost_theta(case: Case) -> Finding | None:
    theta = case.newer.get("rope_theta")
    if (
        case.nested
        or not case.older
        or theta is None
        or case.top_theta is not None
        or "rope_theta" in case.older
    ):
        return None
    if theta == case.default_theta:
        return None

    effect = f"rope_scaling wins, and the base becomes {case.default_theta:g}"
    return Finding(
        "T1",
        ERROR,
        f"rope_scaling ({kind_of(case.older)}) was added to a config whose rope_theta {theta:g} is "
        f"inside rope_parameters",
        {
            "transformers 5": effect,
            "transformers 4": (
                f"never reads rope_parameters: the base becomes {case.default_theta:g}"
            ),
        },
        "keep rope_scaling's method and write the base where both majors read it",
        partial(_keep_older, case=case, theta=theta),
    )


def _keep_older(config: Values, *, case: Case, theta: float) -> dict[str, Any]:
    """rope_scaling alone, with the base that was beside it in rope_parameters."""
    share = {key: case.newer[key] for key in ("partial_rotary_factor",) if key in case.newer}
    return without(config, "rope_parameters") | {
        "rope_scaling": {**share, **case.older, "rope_theta": theta},
        "rope_theta": theta,
    }


def _theta_holes(case: Case) -> list[str]:
    """Where a base of null is written."""
    holes = [
        where
        for where, values in case.dicts()
        if "rope_theta" in values and values["rope_theta"] is None
    ]
    return holes + [key for key in THETA_KEYS if key in case.config and case.config[key] is None]


def _null_theta(case: Case) -> Finding | None:
    holes = _theta_holes(case)
    if not holes:
        return None
    others = {
        values["rope_theta"] for _, values in case.dicts() if values.get("rope_theta") is not None
    } | {case.top_theta}
    known = others - {None}

    def mend(config: Values) -> dict[str, Any]:
        (theta,) = known
        filled = edit_dicts(config, lambda values: {**values, "rope_theta": theta}, nested=False)
        return without(filled, *THETA_KEYS) | {case.theta_key: theta}

    return Finding(
        "T2",
        ERROR,
        f"{holes[0]} has a rope_theta of null: the scaling was set on a loaded config, which then "
        f"forgot its base",
        {
            "transformers 5": "TypeError when the model is built",
            "transformers 4": "TypeError, or the base of the class",
        },
        "write the number that the model was trained with as rope_theta",
        mend if len(known) == 1 and not case.nested else None,
    )


def _missing_theta(case: Case) -> Finding | None:
    if (
        not case.newer
        or case.nested
        or case.older
        or "rope_theta" in case.newer
        or case.top_theta is not None
    ):
        return None
    theta = case.default_theta
    if "rope_theta" in case.config:
        return None
    return Finding(
        "T2",
        WARNING if kind_of(case.newer) != "default" else NOTE,
        f"rope_parameters has no rope_theta, and transformers always saves one: {theta:g} is the "
        f"class's, not the file's",
        {"transformers 5": f"takes {theta:g}", "llama.cpp's converter": "takes 10000"},
        "make sure that this is the base that the model was trained with, and write it down",
        lambda config: {**config, "rope_parameters": {**case.newer, "rope_theta": theta}},
    )


def _inner_truncate(case: Case) -> Finding | None:
    if not case.nested:
        return None
    outer = case.newer.get("truncate", True)
    inner = {
        values["truncate"]
        for _, values in case.dicts()
        if "truncate" in values and kind_of(values) == "yarn"
    }
    if inner <= {outer}:
        return None

    def mend(config: Values) -> dict[str, Any]:
        bare = edit_dicts(config, lambda values: without(values, "truncate"), nested=True)
        (meant,) = inner
        return {**bare, "rope_parameters": {**bare["rope_parameters"], "truncate": meant}}

    return Finding(
        "T6",
        ERROR,
        f"truncate {sorted(inner)[0]} inside a layer type's dict",
        {
            "transformers 5": f"reads it beside the layer types only, so {outer} acts",
            "transformers 4": "reads it in rope_scaling",
        },
        "move it into rope_parameters itself",
        mend if len(inner) == 1 else None,
    )


def _never_read(case: Case) -> Finding | None:
    present = [key for key in ROPE_KEYS if case.config.get(key)]
    if case.name not in NEVER_READ or not present:
        return None
    return Finding(
        "T8",
        ERROR,
        f"{', '.join(present)} on a {case.name} model: {UNREACHABLE[case.name]}",
        {"transformers 5": "stores the keys and runs unscaled", "transformers 4": "the same"},
        "remove the keys; the model stays at its trained length",
        lambda config: without(config, *ROPE_KEYS),
    )


def _stale_cache(case: Case) -> Finding | None:
    for where, values in case.dicts():
        two = kind_of(values) == "longrope" and values.get("short_factor") != values.get(
            "long_factor"
        )
        if not two or _drops_cache(case.name):
            continue
        return Finding(
            "T9",
            WARNING,
            f"{where}: longrope with two tables on a {case.name} model",
            {
                "transformers 5": (
                    "generation that crosses the trained length goes on with "
                    "cached keys of the short table"
                ),
                "transformers 4": "the same",
                "llama.cpp": (
                    "takes the long table for every token once more than the "
                    "trained length is allocated"
                ),
            },
            "one table for all lengths (short_factor = long_factor) keeps generation sound, at a "
            "price for short texts",
            partial(edit_dicts, change=_pin, nested=case.nested),
        )
    return None


def _drops_cache(name: str) -> bool:
    """Whether generation begins anew when it crosses L; other classes go on with keys of the other
    table.
    """
    arch = registry.architectures().get(name)
    return name in DROPS_CACHE or (arch is not None and arch.rope.drops_cache)


def _pin(values: dict[str, Any]) -> dict[str, Any]:
    return (
        {**values, "short_factor": values["long_factor"]}
        if kind_of(values) == "longrope"
        else values
    )


def _lost_keys(case: Case) -> Finding | None:
    """What other parts of the model read in the dict of the rotation."""
    kept = () if case.arch is None else case.arch.rope.kept
    for where, values in case.dicts():
        missing = [key for key in kept if key not in values]
        if missing and not (case.newer and where == "rope_scaling"):
            return Finding(
                "T11",
                ERROR,
                f"{where} has no {', '.join(missing)}: the scaling was set as a whole, and other "
                f"parts of the model read there too",
                {"transformers 5.23": "TypeError when the model runs"},
                "write the values that the model was trained with",
            )
    return None


def _meant(arch: Architecture, values: Mapping[str, Any]) -> Any:
    """The rope_type that a family's class makes of a dict; neither base nor size decides it."""
    found = arch.rope.translate(values, 10000.0, 128)
    return found.get("rope_type", found.get("type", "default"))


def _unscaled_in_4(case: Case) -> Finding | None:
    if case.arch is None:
        return None
    runs, scores = case.arch.rope.runs_in_4, case.arch.rope.scores_in_4
    for where, values in case.dicts():
        name = values.get("rope_type", values.get("type", "default"))
        unscored = values.get("mscale_all_dim") and not scores
        if unscored or (runs and _meant(case.arch, values) not in runs):
            return Finding(
                "T15",
                WARNING,
                f"{where}: {name} on a {case.name}",
                {"transformers 4 (4.57)": "its class breaks, or scales nothing without a word"},
                "run it in transformers 5, or take a target that carries it",
            )
    return None


CONFIG_TRAPS: tuple[Callable[[Case], Finding | None], ...] = (
    _lost_theta,
    _null_theta,
    _missing_theta,
    _inner_truncate,
    _never_read,
    _stale_cache,
    _lost_keys,
    _unscaled_in_4,
)
