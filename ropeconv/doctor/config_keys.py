"""Traps of config.json that lie between its readers: K1 to K4, and the table of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ropeconv.doctor.case import MAX, NEEDS_ORIGINAL, REACHES, TRAINED, Case, factor_of, kind_of
from ropeconv.finding import ERROR, WARNING, Finding, Values


def _hidden_theta(case: Case) -> Finding | None:
    thetas = [
        values.get("rope_theta")
        for where, values in case.dicts()
        if where.startswith("rope_parameters")
    ]
    full = thetas[0] if thetas else None
    if full is None or case.top_theta is not None or "rope_theta" in case.older or full == 10000.0:
        return None
    return Finding(
        "K1",
        WARNING,
        f"rope_theta {full:g} is inside rope_parameters only, as transformers 5 saves it",
        {
            "transformers 4": f"takes {case.default_theta:g}, and no scaling at all"
            if full != case.default_theta
            else "no scaling",
            "readers of the older keys (vLLM, DeepSpeed, SGLang on transformers 4)": (
                "10000, without a word"
            ),
        },
        "write both generations of keys",
        dict,  # the writer of folders writes both
    )


def _no_factors(case: Case) -> Finding | None:
    for where, values in case.dicts():
        missing = [key for key in ("short_factor", "long_factor") if not values.get(key)]
        if kind_of(values) == "longrope" and missing:
            return Finding(
                "K2",
                ERROR,
                f"{where}: longrope without {missing[0]}",
                {
                    "transformers 5": "KeyError when the model is built",
                    "llama.cpp's converter": "writes a file that runs unscaled",
                },
                f"write {missing[0]}, one number for each rotary pair",
            )
    return None


def _stale_limit(case: Case) -> Finding | None:
    limit = case.config.get(MAX)
    for where, values in case.dicts():
        trained = case.trained(values)
        factor = factor_of(values)
        if trained is None or not isinstance(limit, int) or factor is None:
            continue
        reach = round(trained * factor)
        kind = kind_of(values)
        part = kind in REACHES and trained <= limit < reach
        if not part and not (kind in NEEDS_ORIGINAL and limit == trained):
            continue
        stated = values.get(TRAINED, case.config.get(TRAINED))
        told = {TRAINED: trained} if stated is None else {}
        return Finding(
            "K3",
            WARNING,
            f"{where}: factor {factor:g} from {trained} tokens, but {MAX} is still {limit}",
            {
                "vLLM, llama.cpp's server, onnxruntime-genai": f"stop at {limit} tokens",
                "transformers 5": "scales, and says that the lengths do not fit",
            },
            f"set {MAX} to {reach}",
            partial(_state_lengths, lengths={**told, MAX: reach}),
            # what is written then has the length that the factor reaches
            answered=stated is None and limit == trained,
        )
    return None


def _state_lengths(config: Values, *, lengths: Values) -> dict[str, Any]:
    return {**config, **lengths}


def _short_tokenizer(case: Case) -> Finding | None:
    limit = case.tokenizer_limit
    reach = case.config.get(MAX)
    if limit is None or not isinstance(reach, int) or limit >= reach:
        return None
    return Finding(
        "K4",
        WARNING,
        f"tokenizer_config.json has model_max_length {limit}, below {MAX} {reach}",
        {"transformers": f"cuts texts at {limit} tokens wherever truncation is on"},
        f"set model_max_length to {reach}",
        dict,  # the writer of folders raises it
    )


KEY_TRAPS: tuple[Callable[[Case], Finding | None], ...] = (
    _hidden_theta,
    _no_factors,
    _stale_limit,
    _short_tokenizer,
)
