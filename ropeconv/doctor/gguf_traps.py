"""Traps of a GGUF file's rotary keys and tables: G1 to G9, one function each, and the table of them.

The effects are those of llama.cpp: load_hparams and get_rope_factors (src/llama-model.cpp), src/llama-context.cpp, and
the loaders in src/models. A mend is a change of metadata (None removes a key); the writer then encodes what the keys say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ropeconv.doctor.finding import ERROR, NOTE, WARNING, Finding, Values

FREQS, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
TYPES = ("none", "linear", "yarn", "longrope")
# keys that the official converter writes and only the loaders of grok and mistral3 read, with llama.cpp's values
DEAD = {"yarn_ext_factor": 1.0, "yarn_attn_factor": 1.0, "yarn_beta_fast": 32.0, "yarn_beta_slow": 1.0}
READ_BY = ("grok", "mistral3")
INTENT = "ropeconv.intent"
"""A mend's word to whoever writes it: Hugging Face's rope_parameters for the full-attention layers."""


@dataclass(frozen=True)
class GgufCase:
    """A file: metadata, tensor names. problems: why llama.cpp would not load it. original_context: L as the user states it."""

    metadata: Values
    tensors: Collection[str]
    problems: Collection[str]
    original_context: int | None = None

    @property
    def arch(self) -> str:
        """general.architecture."""
        return str(self.metadata.get("general.architecture"))

    def key(self, name: str) -> str:
        """The rotary scaling key's full name."""
        return f"{self.arch}.rope.scaling.{name}"

    def get(self, name: str, default: Any = None) -> Any:
        """A rotary scaling key."""
        return self.metadata.get(self.key(name), default)

    @property
    def kind(self) -> str:
        """The scaling type; llama.cpp's default where there is none."""
        return str(self.get("type", "linear"))

    @property
    def factor(self) -> float:
        """s, 1 where nothing is scaled."""
        value = self.get("factor", self.metadata.get(f"{self.arch}.rope.scale_linear", 1.0))
        return float(value) if isinstance(value, int | float) and value else 1.0

    @property
    def context(self) -> int | None:
        """context_length."""
        value = self.metadata.get(f"{self.arch}.context_length")
        return value if isinstance(value, int) else None

    @property
    def trained(self) -> int | None:
        """L: the file's, or the user's."""
        value = self.get("original_context_length", self.original_context)
        return value if isinstance(value, int) else None


def _change(**changes: Any) -> Callable[[Values], dict[str, Any]]:
    return lambda metadata: {key: value for key, value in {**metadata, **changes}.items() if value is not None}


def _dead_keys(case: GgufCase) -> Finding | None:
    found = {name: float(case.get(name)) for name in DEAD if isinstance(case.get(name), int | float)}
    changed = {name: value for name, value in found.items() if value > 0 and not math.isclose(value, DEAD[name])}
    if case.arch in READ_BY or not found:
        return None
    removed = {case.key(name): None for name in found}
    if not changed or case.kind != "yarn":
        return Finding(
            "G1",
            NOTE,
            f"{', '.join(found)} are never read by llama.cpp's {case.arch}",
            {"llama.cpp": "runs without them"},
            "remove them",
            _change(**removed),
            left_behind=frozenset({"gguf"}),
        )
    trained = case.trained
    intent = {
        "rope_type": "yarn",
        "rope_theta": float(str(_float32(case.metadata.get(f"{case.arch}.rope.freq_base", 10000.0)))),
        "factor": case.factor,
        "original_max_position_embeddings": trained,
        "beta_fast": found.get("yarn_beta_fast", 32.0),
        "beta_slow": found.get("yarn_beta_slow", 1.0),
        **({"attention_factor": found["yarn_attn_factor"]} if "yarn_attn_factor" in changed else {}),
    }
    return Finding(
        "G1",
        ERROR,
        f"{', '.join(f'{name} {value:g}' for name, value in changed.items())}: dead keys in llama.cpp's {case.arch}",
        {"llama.cpp": "runs YaRN with its own magnitude and betas 32 and 1"},
        "carry them in a way that llama.cpp reads",
        _change(**removed, **{INTENT: intent}) if trained is not None and "yarn_ext_factor" not in changed else None,
    )


def _float32(value: Any) -> Any:
    from numpy import float32

    return float32(value)


def _stale_length(case: GgufCase) -> Finding | None:
    trained, context = case.trained, case.context
    if case.kind not in ("linear", "yarn") or case.factor <= 1 or trained is None or context is None:
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
        _change(**{f"{case.arch}.context_length": reach, case.key("original_context_length"): trained}),
    )


def _no_length(case: GgufCase) -> Finding | None:
    if case.kind != "yarn" or case.factor <= 1 or case.get("original_context_length") is not None:
        return None
    context, stated = case.context, case.original_context
    either = f"{context}, or {context / case.factor:g} if that is the extended length" if context else "unknown"
    return Finding(
        "G3",
        ERROR if stated is None else WARNING,
        "yarn without original_context_length",
        {"llama.cpp": f"takes context_length {context}: if that is the extended length, the ramp is at the wrong pairs"},
        f"give the trained length with --original-context N ({either}); `ropeconv inspect --fix` then writes a mended copy",
        None if stated is None else _change(**{case.key("original_context_length"): stated}),
        answered=stated is not None,
    )


def _no_tables(case: GgufCase) -> Finding | None:
    if case.kind != "longrope" or {LONG, SHORT} & set(case.tensors) or FREQS in case.tensors:
        return None
    trained = case.trained
    length = {} if trained is None else {f"{case.arch}.context_length": trained, case.key("original_context_length"): None}
    return Finding(
        "G4",
        ERROR,
        "scaling type longrope without factor tables",
        {"llama.cpp": "runs unscaled, without a word"},
        "convert the checkpoint again; a mended copy says what the file really does",
        _change(**{case.key("type"): None}, **length),
    )


def _twice(case: GgufCase) -> Finding | None:
    rest = case.get("attn_factor")
    if case.kind != "yarn" or case.factor <= 1 or not isinstance(rest, int | float):
        return None
    own = 1 + 0.1 * math.log(case.factor)
    if not math.isclose(rest, own, rel_tol=1e-5):
        return None
    return Finding(
        "G5",
        ERROR,
        f"attn_factor {rest:.6g} is YaRN's magnitude for factor {case.factor:g}, which llama.cpp applies by itself",
        {"llama.cpp": f"multiplies cos and sin by {rest * own:.6g}, not {own:.6g}"},
        "remove attn_factor",
        _change(**{case.key("attn_factor"): None}),
    )


def _leaking(case: GgufCase) -> Finding | None:
    rest = case.get("attn_factor", 1.0)
    if case.arch != "gemma3" or not isinstance(rest, int | float) or math.isclose(rest, 1.0, rel_tol=1e-9):
        return None
    return Finding(
        "G6",
        ERROR,
        f"attn_factor {rest:g} on gemma3",
        {"llama.cpp": "multiplies the sliding-window layers too"},
        "a copy without it has YaRN's own magnitude on the full-attention layers; for another take safetensors or ONNX",
        _change(**{case.key("attn_factor"): None}),
    )


def _unknown_type(case: GgufCase) -> Finding | None:
    if case.kind in TYPES:
        return None
    tables = FREQS in case.tensors
    return Finding(
        "G7",
        ERROR,
        f"scaling type {case.kind!r}",
        {"llama.cpp": "aborts the process while it loads the file"},
        "keep the table and drop the type" if tables else f"convert the checkpoint again; llama.cpp knows {', '.join(TYPES)}",
        _change(**{case.key("type"): None}) if tables else None,
    )


def _unloadable(case: GgufCase) -> Finding | None:
    problem = next((text for text in case.problems if "has no place with scaling type" in text), None)
    if problem is None:
        return None
    return Finding(
        "G8",
        ERROR,
        problem.partition(";")[0],
        {"llama.cpp": "refuses the file (wrong number of tensors)"},
        "carry the divisors in a way that the architecture's loader takes",
        _change(**{case.key("type"): "longrope" if LONG in case.tensors else None}),
    )


def _no_base(case: GgufCase) -> Finding | None:
    key = f"{case.arch}.rope.freq_base"
    if key in case.metadata:
        return None
    return Finding(
        "G9",
        NOTE,
        f"no {key}",
        {"llama.cpp": "takes 10000; its converter never writes the key for gptneox, gemma, phi2, stablelm and falcon"},
        "make sure that the model was trained with base 10000; a mended copy says so",
        _change(**{key: 10000.0}),
    )


GGUF_TRAPS: tuple[Callable[[GgufCase], Finding | None], ...] = (
    _dead_keys,
    _stale_length,
    _no_length,
    _no_tables,
    _twice,
    _leaking,
    _unknown_type,
    _unloadable,
    _no_base,
)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What differs, as `Target.open_checkpoint` takes it: key -> new value, None where it is gone."""
    gone = {key: None for key in before if key not in after}
    return gone | {key: value for key, value in after.items() if key not in before or before[key] != value}
