"""Traps of a GGUF file's rotary keys and tables: G1 to G11, G16 of its window, one function each,
and the table of them.

Traps of one architecture alone lie with it (`Arch.traps`: G6, G12 to G15). The effects are those of
llama.cpp: load_hparams and get_rope_factors (src/llama-model.cpp), src/llama-context.cpp, and the
loaders in src/models. A mend is a change of metadata; the writer then encodes what the keys say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from converters.to_gguf.archs import architectures
from converters.to_gguf.rope.case import SEEN, RotaryCase, change
from converters.to_gguf.rope.loader import FREQS, LONG, SCALING_TYPES, SHORT, TABLES
from converters.to_gguf.rope.settings import count_layers
from ropeconv.artefact import Raw
from ropeconv.finding import ERROR, INTENT, NOTE, WARNING, Finding

# keys that the official converter writes and only the loaders of grok and mistral3 read, with
# llama.cpp's values
DEAD = {
    "yarn_ext_factor": 1.0,
    "yarn_attn_factor": 1.0,
    "yarn_beta_fast": 32.0,
    "yarn_beta_slow": 1.0,
}
READ_BY = ("grok", "mistral3")
# architectures that ropeconv does not write, whose loader creates tables that no graph is given
# (src/models: falcon-h1, pangu-embed, llada, cogvlm, refact)
IGNORES_TABLES = ("falcon-h1", "pangu-embedded", "llada", "cogvlm", "refact")
# and whose graph asks for tables that no loader creates
LACKS_TABLES = (
    "hunyuan-moe",
    "hunyuan-vl",
    "hy_v3",
    "cohere2",
    "cohere2moe",
    "bailingmoe",
    "deepseek",
    "graniteswitch",
)


def examine(raw: Raw, *, original_context: int | None = None) -> list[Finding]:
    """What the file's own keys and tables show. original_context: L as the user states it."""
    case = RotaryCase(raw.metadata, set(raw.tensors), raw.problems, original_context)
    known = architectures().get(case.arch)
    own = () if known is None else known.traps
    found = [finding for trap in (*TRAPS, *own) if (finding := trap(case)) is not None]
    return sorted(found, key=lambda finding: finding.name)


def _dead_keys(case: RotaryCase) -> Finding | None:
    stated = {name: case.get(name) for name in DEAD}
    found = {name: float(x) for name, x in stated.items() if isinstance(x, int | float)}
    if case.arch in READ_BY or not found:
        return None
    changed = {
        name: value
        for name, value in found.items()
        if value > 0 and not math.isclose(value, DEAD[name])
    }
    if changed and case.kind == "yarn":
        return _dead_yarn(case, found, changed)
    return Finding(
        "G1",
        NOTE,
        f"{', '.join(found)} are never read by llama.cpp's {case.arch}",
        {"llama.cpp": "runs without them"},
        "remove them",
        change({case.key(name): None for name in found}),
    )


def _dead_yarn(
    case: RotaryCase, found: Mapping[str, float], changed: Mapping[str, float]
) -> Finding:
    removed: dict[str, Any] = {case.key(name): None for name in found}
    told = ", ".join(f"{name} {value:g}" for name, value in changed.items())
    sayable = case.trained is not None and "yarn_ext_factor" not in changed
    return Finding(
        "G1",
        ERROR,
        f"{told}: dead keys in llama.cpp's {case.arch}",
        {"llama.cpp": "runs YaRN with its own magnitude and betas 32 and 1"},
        "carry them in a way that llama.cpp reads",
        change({**removed, INTENT: _yarn_as_meant(case, found, changed)}) if sayable else None,
    )


def _yarn_as_meant(
    case: RotaryCase, found: Mapping[str, float], changed: Mapping[str, float]
) -> dict[str, Any]:
    """rope_parameters of what the dead keys say."""
    from numpy import float32

    magnitude = "yarn_attn_factor"
    own = {"attention_factor": found[magnitude]} if magnitude in changed else {}
    return {
        "rope_type": "yarn",
        "rope_theta": float(str(float32(case.metadata.get(case.base_key, 10000.0)))),
        "factor": case.factor,
        "original_max_position_embeddings": case.trained,
        "beta_fast": found.get("yarn_beta_fast", DEAD["yarn_beta_fast"]),
        "beta_slow": found.get("yarn_beta_slow", DEAD["yarn_beta_slow"]),
        **own,
    }


def _stale_length(case: RotaryCase) -> Finding | None:
    trained, context = case.trained, case.context
    scaled = case.kind in ("linear", "yarn") and case.factor > 1
    if not scaled or trained is None or context is None:
        return None
    reach = round(trained * case.factor)
    if context >= reach:
        return None
    return Finding(
        "G2",
        WARNING,
        f"context_length is {context}, factor {case.factor:g} from {trained} reaches {reach}",
        {"llama.cpp": f"llama-server caps every slot at {context}; -c 0 allocates {context}"},
        f"set it to {reach}",
        change({case.context_key: reach, case.key("original_context_length"): trained}),
    )


def _no_length(case: RotaryCase) -> Finding | None:
    stated = case.get("original_context_length")
    if case.kind != "yarn" or case.factor <= 1 or stated is not None:
        return None
    context, told = case.context, case.original_context
    either = "unknown"
    if context:
        either = f"{context}, or {context / case.factor:g} if that is the extended length"
    return Finding(
        "G3",
        ERROR if told is None else WARNING,
        "yarn without original_context_length",
        {
            "llama.cpp": f"takes context_length {context}: if that is the extended length, "
            f"the ramp is at the wrong pairs"
        },
        f"give the trained length with --original-context N ({either}); "
        f"`ropeconv inspect --fix` then writes a mended copy",
        None if told is None else change({case.key("original_context_length"): told}),
        answered=told is not None,
    )


def _no_tables(case: RotaryCase) -> Finding | None:
    if case.kind != "longrope" or {FREQS, LONG, SHORT} & set(case.tensors):
        return None
    length: dict[str, Any] = {}
    if case.trained is not None:
        length = {case.context_key: case.trained, case.key("original_context_length"): None}
    return Finding(
        "G4",
        ERROR,
        "scaling type longrope without factor tables",
        {"llama.cpp": "runs unscaled, without a word"},
        "convert the checkpoint again; a mended copy says what the file really does",
        change({case.key("type"): None, **length}),
    )


def _magnitude_twice(case: RotaryCase) -> Finding | None:
    rest = case.get("attn_factor")
    if case.kind != "yarn" or case.factor <= 1 or not isinstance(rest, int | float):
        return None
    own = 1 + 0.1 * math.log(case.factor)
    known = architectures().get(case.arch)
    # with the logarithm's multiplier llama.cpp applies none by itself there
    told = known is not None and known.loader.scales_scores and case.get("yarn_log_multiplier")
    if told or not math.isclose(rest, own, rel_tol=1e-5):
        return None
    return Finding(
        "G5",
        ERROR,
        f"attn_factor {rest:.6g} is YaRN's magnitude for factor {case.factor:g}, "
        f"which llama.cpp applies by itself",
        {"llama.cpp": f"multiplies cos and sin by {rest * own:.6g}, not {own:.6g}"},
        "remove attn_factor",
        change({case.key("attn_factor"): None}),
    )


def _unknown_type(case: RotaryCase) -> Finding | None:
    if case.kind in SCALING_TYPES:
        return None
    advice = f"convert the checkpoint again; llama.cpp knows {', '.join(SCALING_TYPES)}"
    has_table = FREQS in case.tensors
    return Finding(
        "G7",
        ERROR,
        f"scaling type {case.kind!r}",
        {"llama.cpp": "aborts the process while it loads the file"},
        "keep the table and drop the type" if has_table else advice,
        change({case.key("type"): None}) if has_table else None,
    )


def _unloadable(case: RotaryCase) -> Finding | None:
    problem = next((x for x in case.problems if "has no place with scaling type" in x), None)
    if problem is None:
        return None
    return Finding(
        "G8",
        ERROR,
        problem.partition(";")[0],
        {"llama.cpp": "refuses the file (wrong number of tensors)"},
        "carry the divisors in a way that the architecture's loader takes",
        change({case.key("type"): "longrope" if LONG in case.tensors else None}),
    )


def _no_base(case: RotaryCase) -> Finding | None:
    if case.base_key in case.metadata:
        return None
    return Finding(
        "G9",
        NOTE,
        f"no {case.base_key}",
        {
            "llama.cpp": "takes 10000; its converter never writes the key for gptneox, gemma, "
            "phi2, stablelm and falcon"
        },
        "make sure that the model was trained with base 10000; a mended copy says so",
        change({case.base_key: 10000.0}),
    )


def _ignored_table(case: RotaryCase) -> Finding | None:
    tables = [name for name in TABLES if name in case.tensors]
    if case.arch not in IGNORES_TABLES or not tables:
        return None
    return Finding(
        "G10",
        ERROR,
        f"{', '.join(tables)} in a {case.arch} file",
        {SEEN: "loads the table and never uses it: what it should scale runs unscaled"},
        "convert the checkpoint again with linear or YaRN scaling as metadata, which acts",
    )


def _table_without_place(case: RotaryCase) -> Finding | None:
    tables = [name for name in TABLES if name in case.tensors]
    if case.arch not in LACKS_TABLES or not tables:
        return None
    return Finding(
        "G11",
        ERROR,
        f"{', '.join(tables)} in a {case.arch} file",
        {SEEN: "does not load the file: its loader has no place for the table"},
        "convert the checkpoint again with linear or YaRN scaling as metadata, which acts",
    )


def _ignored_window(case: RotaryCase) -> Finding | None:
    key = f"{case.arch}.attention.sliding_window"
    window, context = case.metadata.get(key), case.context
    known = architectures().get(case.arch)
    count = case.metadata.get(f"{case.arch}.block_count")
    if known is None or known.has_windows or context is None or not isinstance(count, int):
        return None
    windowed = case.metadata.get(f"{case.arch}.attention.sliding_window_pattern", True)
    if isinstance(windowed, list) and not any(windowed[: count_layers(case.metadata)]):
        return None  # the window of a spare layer, which its loader asks for
    if not isinstance(window, int) or not 0 < window < context:
        return None
    return Finding(
        "G16",
        ERROR,
        f"{key} is {window}, below context_length {context}",
        {"llama.cpp": f"attends past the window: other numbers than the model's from {window} on"},
        f"lower context_length to {window}, within which the file is exact; or convert the model's "
        f"own folder with `ropeconv onnx` or `ropeconv safetensors`, which keep the window",
        change({case.context_key: window}),
    )


TRAPS: tuple[Callable[[RotaryCase], Finding | None], ...] = (
    _dead_keys,
    _stale_length,
    _no_length,
    _no_tables,
    _magnitude_twice,
    _unknown_type,
    _unloadable,
    _no_base,
    _ignored_table,
    _table_without_place,
    _ignored_window,
)
