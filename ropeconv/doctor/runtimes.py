"""Where runtimes disagree about a sound config: D1 ..., a table of rows.

Nothing is wrong with the file, so there is nothing to mend; ropeconv carries the numbers in another
way, or refuses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ropeconv.doctor.case import MAX, TRAINED, Case, kind_of
from ropeconv.finding import NOTE, Finding, Values
from ropeconv.rope.magnitude import yarn_magnitude


@dataclass(frozen=True)
class Row:
    """name, what: see Finding. shows: (config, rotary dict) -> whether the file shows it."""

    name: str
    what: str
    shows: Callable[[Values, Values], bool]
    effects: Mapping[str, str]


def _yarn(values: Values) -> bool:
    return kind_of(values) == "yarn"


def _betas(values: Values) -> tuple[float, float]:
    return float(values.get("beta_fast") or 32), float(values.get("beta_slow") or 1)


def _own_magnitude(values: Values) -> bool:
    """A magnitude other than YaRN's rule for the factor."""
    magnitude = values.get("attention_factor")
    factor = values.get("factor")
    if not isinstance(magnitude, int | float) or not isinstance(factor, int | float) or factor <= 1:
        return False
    return not math.isclose(magnitude, yarn_magnitude(factor), rel_tol=1e-6)


def _loose_factor(config: Values, values: Values) -> bool:
    trained = values.get(TRAINED, config.get(TRAINED))
    reach = config.get(MAX)
    known = (
        isinstance(trained, int)
        and trained > 0
        and isinstance(reach, int)
        and isinstance(values.get("factor"), int | float)
    )
    return (
        known
        and values.get("attention_factor") is None
        and not math.isclose(values["factor"], reach / trained, rel_tol=1e-9)
    )


ROWS: tuple[Row, ...] = (
    Row(
        "D1",
        "yarn with truncate false",
        lambda _, values: _yarn(values) and values.get("truncate") is False,
        {"llama.cpp, mlx-lm, mobius": "round the ramp all the same"},
    ),
    Row(
        "D2",
        "yarn with beta_fast or beta_slow of its own",
        lambda _, values: _yarn(values) and _betas(values) != (32.0, 1.0),
        {"llama.cpp": "ignores the keys that its converter writes, but for grok and mistral3"},
    ),
    Row(
        "D3",
        "yarn with an attention_factor other than 0.1 ln(factor) + 1",
        lambda _, values: _yarn(values) and _own_magnitude(values),
        {
            "llama.cpp": "its converter writes a key that its loader ignores",
            "mlx-lm, onnxruntime-genai, mobius": "never read it",
        },
    ),
    Row(
        "D4",
        "yarn with mscale",
        lambda _, values: _yarn(values) and bool(values.get("mscale")),
        {
            "onnxruntime-genai": "takes mscale itself for the magnitude",
            "SGLang": "ignored it until 2026",
        },
    ),
    Row(
        "D5",
        "yarn that leaves beta_fast and beta_slow to their defaults",
        lambda _, values: (
            _yarn(values) and not (values.get("beta_fast") and values.get("beta_slow"))
        ),
        {"onnxruntime-genai": "takes 0 for them and stops with ZeroDivisionError"},
    ),
    Row(
        "D6",
        "dynamic scaling",
        lambda _, values: kind_of(values) == "dynamic",
        {
            "llama.cpp": "its converter drops it without a word",
            "vLLM": "one table for the maximum length",
            "transformers": "keys already cached keep the base of their own length",
        },
    ),
    Row(
        "D7",
        "longrope whose factor is not the ratio of its lengths",
        lambda config, values: kind_of(values) == "longrope" and _loose_factor(config, values),
        {"vLLM, llama.cpp's converter": "take the ratio for the magnitude"},
    ),
    Row(
        "D8",
        "longrope with two tables",
        lambda _, values: (
            kind_of(values) == "longrope"
            and values.get("short_factor") != values.get("long_factor")
        ),
        {
            "llama.cpp, vLLM": (
                "choose by the context that is allocated, not by the length of the text"
            ),
            "mlx-lm": "long table only",
        },
    ),
    Row(
        "D9",
        "a magnitude on heads that rotate in part",
        lambda _, values: _yarn(values) and float(values.get("partial_rotary_factor") or 1) < 1,
        {"every runtime": "scales the rotating part of the scores only"},
    ),
)
# of a key beside the rotary dicts
CHUNKS = "dual_chunk_attention_config"


def disagreements(case: Case) -> list[Finding]:
    """A note for every row that the config shows."""
    found = [_chunks()] if case.config.get(CHUNKS) else []
    for row in ROWS:
        where = next(
            (where for where, values in case.dicts() if row.shows(case.config, values)), None
        )
        if where is not None:
            advice = "ropeconv's own writers carry the numbers exactly or refuse"
            found.append(Finding(row.name, NOTE, f"{where}: {row.what}", row.effects, advice))
    return found


def _chunks() -> Finding:
    return Finding(
        "D28",
        NOTE,
        f"{CHUNKS}: attention by chunks, with positions of their own",
        {
            "vLLM": "computes it",
            "every runtime but vLLM": "rotates by the whole distance, past the trained length too",
        },
        "what is written rotates as transformers does",
    )
