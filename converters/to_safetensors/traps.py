"""What transformers itself falls into with the configs of single classes: T12 to T14.

Run in transformers 5.23; the traps of every class are the doctor's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ropeconv.arch.layers import FULL
from ropeconv.doctor.case import Case, kind_of
from ropeconv.finding import ERROR, WARNING, Finding, Values

SEEN = "transformers 5.23"
NEEDS_HEAD_DIM = ("hunyuan_v1_dense", "hunyuan_v1_moe", "ministral")


def config_traps(case: Case) -> list[Finding]:
    """Those that the config shows."""
    return [finding for trap in TRAPS if (finding := trap(case)) is not None]


def _no_head_dim(case: Case) -> Finding | None:
    if case.name not in NEEDS_HEAD_DIM or case.config.get("head_dim") is not None:
        return None
    hidden, heads = (case.config.get(key) for key in ("hidden_size", "num_attention_heads"))
    whole = isinstance(hidden, int) and isinstance(heads, int) and heads and hidden % heads == 0

    def mend(config: Values) -> dict[str, Any]:
        return {**config, "head_dim": config["hidden_size"] // config["num_attention_heads"]}

    return Finding(
        "T12",
        ERROR,
        f"no head_dim in the config of a {case.name}",
        {SEEN: "TypeError when the model is built"},
        "write head_dim: hidden_size / num_attention_heads",
        mend if whole else None,
    )


def _null_window(case: Case) -> Finding | None:
    stated = case.config.get("sliding_window", 0)
    if case.name != "exaone4" or stated is not None or case.config.get("layer_types"):
        return None

    def mend(config: Values) -> dict[str, Any]:
        return {**config, "layer_types": [FULL] * config["num_hidden_layers"]}

    return Finding(
        "T13",
        ERROR,
        "sliding_window null without layer_types",
        {SEEN: "ZeroDivisionError when config.json is read"},
        f"write layer_types, {FULL} for every layer",
        mend if isinstance(case.config.get("num_hidden_layers"), int) else None,
    )


def _unused_factors(case: Case) -> Finding | None:
    for where, values in case.dicts():
        same = values.get("short_factor") == values.get("long_factor")
        if case.name == "phimoe" and kind_of(values) == "longrope" and not same:
            return Finding(
                "T14",
                WARNING,
                f"{where}: longrope with two tables in a phimoe",
                {SEEN: "never takes long_factor, however long the text"},
                "compare with another runtime past the trained length",
            )
    return None


TRAPS: tuple[Callable[[Case], Finding | None], ...] = (
    _no_head_dim,
    _null_window,
    _unused_factors,
)
