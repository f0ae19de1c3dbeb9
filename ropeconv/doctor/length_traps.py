"""Traps of config.json in what it says of lengths (T4, T5, T7, T10), and the table of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ropeconv.doctor.case import (
    MAX,
    NEEDS_ORIGINAL,
    REACHES,
    TRAINED,
    Case,
    edit_dicts,
    factor_of,
    kind_of,
    without,
)
from ropeconv.finding import ERROR, NOTE, WARNING, Finding, Values


def _yarn_without_length(case: Case) -> Finding | None:
    limit = case.config.get(MAX)
    for where, values in case.dicts():
        known = case.config.get(TRAINED) is not None and not case.nested
        if kind_of(values) != "yarn" or values.get(TRAINED) is not None or known:
            continue
        if case.nested and case.config.get(TRAINED) is not None:
            return None  # T7 says it
        stated = case.original_context
        factor = values.get("factor")
        return Finding(
            "T4",
            ERROR if stated is None else WARNING,
            f"{where}: yarn without {TRAINED}",
            {
                "transformers 5": (
                    f"takes {MAX} {limit}: if that is the extended length, "
                    "frequencies are off by up to 2.2 times"
                ),
                "transformers 4": "the same",
                "onnxruntime-genai": "takes the extended length",
            },
            f"give the trained length with --original-context N{_either_length(limit, factor)}",
            None if stated is None else partial(_state_length, length=stated, nested=case.nested),
            answered=stated is not None,
        )
    return None


def _either_length(limit: Any, factor: Any) -> str:
    """What N may be: a limit does not say whether the factor is in it."""
    if not limit or not factor:
        return ""
    return f" ({limit}, or {limit / factor:g} if that was multiplied already)"


def _state_length(config: Values, *, length: int, nested: bool) -> dict[str, Any]:
    """L written into every dict that needs it, and beside them; the limit never below it."""

    def change(values: dict[str, Any]) -> dict[str, Any]:
        return {**values, TRAINED: length} if kind_of(values) in NEEDS_ORIGINAL else values

    return {**edit_dicts(config, change, nested=nested), TRAINED: length}


def _bumped_dynamic(case: Case) -> Finding | None:
    limit = case.config.get(MAX)
    for where, values in case.dicts():
        stated = [values.get(TRAINED), case.config.get(TRAINED), case.original_context]
        trained = next((value for value in stated if isinstance(value, int)), None)
        if kind_of(values) != "dynamic" or trained is None or limit is None or trained == limit:
            continue
        return Finding(
            "T5",
            ERROR,
            f"{where}: dynamic with {MAX} {limit} raised above the trained {trained}",
            {
                "transformers 5": (
                    f"takes {limit} for the trained length: nothing is scaled below it"
                ),
                "transformers 4": "the same",
                "vLLM": "builds one table for the maximum",
            },
            f"set {MAX} back to {trained}",
            partial(_lower_limit, length=trained, nested=case.nested),
        )
    return None


def _lower_limit(config: Values, *, length: int, nested: bool) -> dict[str, Any]:
    inner = edit_dicts(config, lambda values: without(values, TRAINED), nested=nested)
    return without(inner, TRAINED) | {MAX: length}


def _outer_length(case: Case) -> Finding | None:
    length = case.config.get(TRAINED)
    if not case.nested or not isinstance(length, int) or length == case.config.get(MAX):
        return None
    holes = [
        where
        for where, values in case.dicts()
        if kind_of(values) in NEEDS_ORIGINAL and values.get(TRAINED) is None
    ]
    if not holes:
        return None
    return Finding(
        "T7",
        ERROR,
        f"{holes[0]} has no {TRAINED}, only config.json itself has ({length})",
        {
            "transformers 5": (
                f"does not look there for a nested dict: takes {MAX} {case.config.get(MAX)}"
            ),
            "transformers 4": "the same",
        },
        "move it into the layer type's dict",
        partial(_state_length, length=length, nested=True),
    )


def _lengths_apart(case: Case) -> Finding | None:
    """A factor that the lengths do not bear out; a limit that is too low is K3's."""
    limit = case.config.get(MAX)
    for where, values in case.dicts():
        factor = factor_of(values)
        if kind_of(values) not in REACHES or factor is None or not isinstance(limit, int):
            continue
        trained = case.trained(values)
        if trained is not None and limit > round(trained * factor):
            return _beyond_factor(where, factor=factor, trained=trained, limit=limit)
        if trained is None and kind_of(values) not in NEEDS_ORIGINAL:
            return _one_length(where, factor=factor, limit=limit)
    return None


def _one_length(where: str, *, factor: float, limit: int) -> Finding:
    return Finding(
        "T10",
        NOTE,
        f"{where}: factor {factor:g} and one length alone, {MAX} {limit}: the trained one, or what "
        f"the factor reaches",
        {
            "every runtime": f"stops at {limit} tokens, and the factor reaches "
            f"{round(limit * factor)} if that is the trained length"
        },
        f"say which with --original-context N{_either_length(limit, factor)}",
    )


def _beyond_factor(where: str, *, factor: float, trained: int, limit: int) -> Finding:
    reach = round(trained * factor)
    return Finding(
        "T10",
        NOTE,
        f"{where}: factor {factor:g} from {trained} tokens reaches {reach}, and {MAX} is {limit}",
        {"every runtime": f"goes on past {reach} tokens, to angles that no training had"},
        f"set {MAX} to {reach}, or scale further with --context {limit} --on-existing replace",
    )


LENGTH_TRAPS: tuple[Callable[[Case], Finding | None], ...] = (
    _yarn_without_length,
    _bumped_dynamic,
    _outer_length,
    _lengths_apart,
)
