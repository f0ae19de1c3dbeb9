"""What llama.cpp's graphs and its converter make of a config that is sound in itself: D20 to D26.

Read in src/models and conversion/ of llama.cpp as llama-cpp-python 0.3.36 has it, and run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from converters.to_gguf.archs.gemma2 import LAYERS_OF_27B as LAYERS_OF_GEMMA2_27B
from converters.to_gguf.archs.gemma3 import LAYERS_OF_27B as LAYERS_OF_GEMMA3_27B
from converters.to_gguf.rope.case import SEEN
from ropeconv.arch.layers import FULL, SLIDING
from ropeconv.doctor.case import Case, kind_of
from ropeconv.finding import NOTE, Finding

CONVERTER = "llama.cpp's converter (llama-cpp-python 0.3.36)"
ADVICE = "ropeconv's own writer carries the numbers exactly or refuses"
WINDOW_KEYS = ("sliding_window",)
WINDOW_IF_USED = ("sliding_window", "use_sliding_window")
# model_type -> the keys that must all be on for a window
WITHOUT_WINDOWS: Mapping[str, tuple[str, ...]] = {
    "mistral": WINDOW_KEYS,
    "mixtral": WINDOW_KEYS,
    "starcoder2": WINDOW_KEYS,
    "dots1": WINDOW_KEYS,
    "qwen2": WINDOW_IF_USED,
    "qwen3": WINDOW_IF_USED,
    "qwen2_moe": WINDOW_IF_USED,
    "qwen3_moe": WINDOW_IF_USED,
}
LAYERS_OF_EXAONE_32B = 64  # src/models/exaone4.cpp: the only one with windows
# of query_pre_attn_scalar and head_dim, where a config has none
GEMMA_DEFAULT = 256
LARGE_GEMMAS: Mapping[str, int] = {
    "gemma2": LAYERS_OF_GEMMA2_27B,
    "gemma3_text": LAYERS_OF_GEMMA3_27B,
}
# whether the graph of a mixture divides the chosen experts' weights by their sum
NORMED: Mapping[str, bool] = {"qwen3_moe": True, "qwen2_moe": False, "olmoe": False}
QK_NORM_LAYERS = 64  # src/models/command-r.cpp: norms of q and k from so many layers on


@dataclass(frozen=True)
class Row:
    """name, what: see Finding; effect: of whom. shows: whether the config does."""

    name: str
    what: str
    shows: Callable[[Case], bool]
    effect: str
    whose: str = SEEN


def _windows(case: Case) -> bool:
    keys = WITHOUT_WINDOWS.get(case.name)
    return keys is not None and all(case.config.get(key) for key in keys)


def _exaone_windows(case: Case) -> bool:
    layers = case.config.get("num_hidden_layers")
    window = case.config.get("sliding_window", 4096)
    return case.name == "exaone4" and bool(window) and layers != LAYERS_OF_EXAONE_32B


def _other_pattern(case: Case) -> bool:
    """Other layers than every fourth that do not rotate."""
    if case.name != "smollm3":
        return False
    stated = case.config.get("no_rope_layers")
    if stated is None:
        return bool(case.config.get("no_rope_layer_interval", 4) != 4)
    return bool(list(stated) != [int((n + 1) % 4 != 0) for n in range(len(stated))])


def _query_scale(case: Case) -> bool:
    if case.name not in LARGE_GEMMAS:
        return False
    config = case.config
    built_in = config.get("head_dim", GEMMA_DEFAULT)
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    if config.get("num_hidden_layers") == LARGE_GEMMAS[case.name] and heads and hidden:
        built_in = hidden // heads
    return bool(config.get("query_pre_attn_scalar", GEMMA_DEFAULT) != built_in)


def _two_bases(case: Case) -> bool:
    if case.name not in ("olmo3", "mellum"):
        return False
    rope = [case.newer.get(kind) for kind in (FULL, SLIDING)]
    bases = [values.get("rope_theta") for values in rope if isinstance(values, Mapping)]
    return len(bases) == 2 and bases[0] != bases[1]


def _other_norm(case: Case) -> bool:
    """transformers takes false where the key is not there."""
    norms = NORMED.get(case.name)
    return norms is not None and bool(case.config.get("norm_topk_prob", False)) != norms


def _many_norms(case: Case) -> bool:
    layers = case.config.get("num_hidden_layers")
    small = isinstance(layers, int) and layers < QK_NORM_LAYERS
    return case.name == "cohere" and bool(case.config.get("use_qk_norm")) and small


def _scaled(case: Case) -> bool:
    return any(kind_of(values) != "default" for _, values in case.dicts())


ROWS = (
    Row("D20", "a sliding window", _windows, "has none here: every token sees the whole text"),
    Row(
        "D20",
        "a sliding window, and not 64 layers",
        _exaone_windows,
        "drops the window, and rotates the layers that should stand still",
    ),
    Row(
        "D21",
        "layers that do not rotate, other than every fourth",
        _other_pattern,
        "lets every fourth stand still whatever the config says",
    ),
    Row(
        "D22",
        "query_pre_attn_scalar that the layers do not imply",
        _query_scale,
        "never reads it: scores are scaled by the head's size",
    ),
    Row(
        "D23",
        "another base in layers with a window",
        _two_bases,
        "rotates every layer by the base of full attention",
    ),
    Row(
        "D24",
        "norm_topk_prob other than its graph's",
        _other_norm,
        "divides the experts' weights by their sum, or not, by architecture alone",
    ),
    Row(
        "D25",
        "a scaling",
        lambda case: case.name in ("cohere", "cohere2") and _scaled(case),
        "writes scaling type none: the file runs unscaled",
        CONVERTER,
    ),
    Row(
        "D26",
        "use_qk_norm with fewer than 64 layers",
        _many_norms,
        "does not load the norms of q and k, and refuses the file",
    ),
)


def config_traps(case: Case) -> list[Finding]:
    """A note for every row that the config shows."""
    return [
        Finding(row.name, NOTE, f"{row.what} in a {case.name}", {row.whose: row.effect}, ADVICE)
        for row in ROWS
        if row.shows(case)
    ]
