"""What llama.cpp will rotate by, read back from a finished file's keys and tensors.

This restates llama.cpp, not ropeconv: `load_hparams` and `get_rope_factors` (src/llama-model.cpp), the magnitude in the
constructor of src/llama-context.cpp, `ggml_rope_yarn_corr_dims` (ggml/src/ggml.c), `rope_yarn` (ggml-cpu/ops.cpp) and
the sliding layers of src/models/gemma3.cpp and olmo2.cpp. It shares no formula with `ropeconv/rope`, so that a mistake
there cannot hide here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.errors import ConfigError
from ropeconv.model import Tensor
from ropeconv.rope.spec import Frequencies

Array = NDArray[np.float64]
Table = Tensor | NDArray[np.float32]

FREQS, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
SCALING_TYPES = ("none", "linear", "yarn", "longrope")  # llama.cpp aborts the process on any other
BETA_FAST, BETA_SLOW = 32.0, 1.0  # fixed: only grok's and mistral3's loaders read the yarn_beta keys


@dataclass(frozen=True)
class Loader:
    """What one architecture's loader and graph do with rotary settings.

    divisors: scaling type -> the per-pair tensors that it creates; any other one makes the file unloadable.
    whole_head: the rotary dimension must be the head's. sliding: rule for layers with a window, None = there are none;
    pattern: without a key, every pattern-th layer is full attention.
    """

    divisors: Mapping[str, tuple[str, ...]]
    whole_head: bool = True
    sliding: str | None = None
    pattern: int = 0


_NONE: Mapping[str, tuple[str, ...]] = dict.fromkeys(SCALING_TYPES, ())
LOADERS: Mapping[str, Loader] = {
    "llama": Loader(dict.fromkeys(SCALING_TYPES, (FREQS,)) | {"longrope": (LONG, SHORT)}),
    "phi3": Loader(dict.fromkeys(SCALING_TYPES, (LONG, SHORT)), whole_head=False),
    "gptneox": Loader(_NONE, whole_head=False),
    "qwen2": Loader(_NONE),
    "qwen3": Loader(_NONE),
    "gemma3": Loader(_NONE, sliding="own_base", pattern=6),
    "olmo2": Loader(_NONE, sliding="global_base", pattern=4),
}
# As if every loader took every table: what the author of a file that llama.cpp refuses for its table meant.
LENIENT: Mapping[str, Loader] = {
    name: replace(loader, divisors=dict.fromkeys(SCALING_TYPES, (FREQS, LONG, SHORT))) for name, loader in LOADERS.items()
}


@dataclass(frozen=True)
class Settings:
    """The rotary settings that llama.cpp holds after loading: its defaults where the file is silent.

    dimension: rotary values of a head. scale: freq_scale = 1 / factor. attention: the key attn_factor, R.
    """

    kind: str
    dimension: int
    base: float
    base_sliding: float
    scale: float
    original_context: int
    attention: float
    window: int

    @property
    def yarn(self) -> bool:
        """Whether the YaRN ramp and magnitude act (ext_factor is 1)."""
        return self.kind == "yarn"


def frequencies(
    metadata: Mapping[str, Any], tensors: Mapping[str, Table], *, loaders: Mapping[str, Loader] = LOADERS
) -> dict[str, Frequencies]:
    """Layer type -> the angles (radians a token, per pair) and magnitude that llama.cpp computes from this file.

    metadata: every key of the file; tensors: by GGUF name, lazy or as float32 arrays. With more context allocated than
    `switch_context`, every token uses `long_inv_freq`. Raises ConfigError with the first of `rope_problems`.
    """
    problems = rope_problems(metadata, tensors, loaders=loaders)
    if problems:
        raise ConfigError(problems[0])
    arch = metadata["general.architecture"]
    loader, settings = loaders[arch], read_settings(metadata)
    found: dict[str, Frequencies] = {}
    sliding = _sliding_layers(metadata, settings)
    if not all(sliding):
        found["full_attention"] = _full(settings, tensors, loader)
    if any(sliding):
        found["sliding_attention"] = _sliding(settings, rule=str(loader.sliding))
    return found


def rope_problems(
    metadata: Mapping[str, Any], tensors: Mapping[str, Table], *, loaders: Mapping[str, Loader] = LOADERS
) -> list[str]:
    """Why llama.cpp would refuse, abort on or misread the rotary settings: one line each, empty = sound."""
    arch = str(metadata.get("general.architecture"))
    if arch not in LOADERS:
        known = ", ".join(sorted(LOADERS))
        return [f"general.architecture is {arch!r}; the proof knows how llama.cpp rotates in {known}"]
    kind = metadata.get(f"{arch}.rope.scaling.type", "linear")
    if kind not in SCALING_TYPES:
        return [f"{arch}.rope.scaling.type is {kind!r}, on which llama.cpp aborts; it knows {', '.join(SCALING_TYPES)}"]
    missing = [key for key in _required(arch) if not _positive(metadata.get(key))]
    if missing:
        return [f"{missing[0]} is missing or not a positive number; llama.cpp does not load the file"]
    wrong = [key for key in _optional(arch) if key in metadata and not _positive(metadata[key], zero=True)]
    if wrong:
        return [f"{key} is {metadata[key]!r}; a finite number that is not negative is expected" for key in wrong]
    settings = read_settings(metadata)
    return [*_dimension_problems(metadata, settings), *_tensor_problems(settings, tensors, loaders[arch])]


def read_settings(metadata: Mapping[str, Any]) -> Settings:
    """The settings after loading, of a file whose keys are sound (`rope_problems`)."""
    arch = metadata["general.architecture"]

    def value(key: str, default: float) -> float:
        return float(metadata.get(f"{arch}.{key}", default))

    kind = str(metadata.get(f"{arch}.rope.scaling.type", "linear"))
    factor = value("rope.scaling.factor", value("rope.scale_linear", 0.0))
    context = value("context_length", 0.0)
    return Settings(
        kind=kind,
        dimension=int(value("rope.dimension_count", _head_size(metadata))),
        base=value("rope.freq_base", 10000.0),
        base_sliding=value("rope.freq_base_swa", 10000.0),
        scale=1.0 if kind == "none" or factor == 0.0 else 1.0 / factor,
        original_context=int(value("rope.scaling.original_context_length", context)) or int(context),
        attention=value("rope.scaling.attn_factor", 1.0),
        window=int(value("attention.sliding_window", 0.0)),
    )


def _required(arch: str) -> tuple[str, ...]:
    keys = ("context_length", "embedding_length", "attention.head_count", "block_count")
    return tuple(f"{arch}.{key}" for key in keys)


def _optional(arch: str) -> tuple[str, ...]:
    scaling = ("factor", "original_context_length", "attn_factor")
    others = ("freq_base", "freq_base_swa", "dimension_count", "scale_linear")
    return tuple(f"{arch}.rope.scaling.{key}" for key in scaling) + tuple(f"{arch}.rope.{key}" for key in others)


def _positive(value: Any, *, zero: bool = False) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return number and (value > 0 or (zero and value == 0))


def _head_size(metadata: Mapping[str, Any]) -> int:
    arch = metadata["general.architecture"]
    width = metadata[f"{arch}.embedding_length"] // metadata[f"{arch}.attention.head_count"]
    return int(metadata.get(f"{arch}.attention.key_length", width))


def _dimension_problems(metadata: Mapping[str, Any], settings: Settings) -> list[str]:
    arch, head = metadata["general.architecture"], _head_size(metadata)
    key = f"{arch}.rope.dimension_count"
    if LOADERS[arch].whole_head and settings.dimension != head:
        return [f"{key} is {settings.dimension}, heads have {head} values; llama.cpp rotates whole heads in {arch}"]
    if settings.dimension % 2 or not 0 < settings.dimension <= head:
        return [f"{key} is {settings.dimension}; an even number up to the head's {head} values is expected"]
    if settings.base <= 1.0:
        return [f"{arch}.rope.freq_base is {settings.base:g}; a base above 1 is expected"]
    return []


def _tensor_problems(settings: Settings, tensors: Mapping[str, Table], loader: Loader) -> list[str]:
    problems, pairs = [], settings.dimension // 2
    for name in (name for name in (FREQS, LONG, SHORT) if name in tensors):
        tensor = tensors[name]
        if name not in loader.divisors[settings.kind]:
            problems.append(f"{name} has no place with scaling type {settings.kind}; llama.cpp does not load the file")
        elif tuple(tensor.shape) != (pairs,) or str(tensor.dtype) not in {"F32", "float32"}:
            problems.append(f"{name} is {tensor.dtype} {tuple(tensor.shape)}; llama.cpp reads F32 ({pairs},)")
        elif not np.all(_read(tensor) > 0):
            problems.append(f"{name} holds a divisor that is not above zero; the angles would be meaningless")
    return problems


def _read(table: Table) -> Array:
    values = table if isinstance(table, np.ndarray) else table.rows(0, table.shape[0])
    return np.asarray(values, np.float64)


def _sliding_layers(metadata: Mapping[str, Any], settings: Settings) -> list[bool]:
    """Whether each layer has a window, as the architecture's loader decides."""
    arch = metadata["general.architecture"]
    layers, loader = int(metadata[f"{arch}.block_count"]), LOADERS[arch]
    if loader.sliding is None or not settings.window:
        return [False] * layers
    pattern = metadata.get(f"{arch}.attention.sliding_window_pattern", loader.pattern)
    if isinstance(pattern, int) and not isinstance(pattern, bool):
        return [not pattern or layer % pattern < pattern - 1 for layer in range(layers)]
    return [bool(entry) for entry in pattern][:layers]


def _full(settings: Settings, tensors: Mapping[str, Table], loader: Loader) -> Frequencies:
    tables = {name: _divisors(tensors, name, settings, loader) for name in (FREQS, LONG, SHORT)}
    base = _powers(settings.base, settings.dimension)
    if tables[FREQS] is not None or (tables[LONG] is None and tables[SHORT] is None):
        return Frequencies(_scaled(base, tables[FREQS], settings), base, _magnitude(settings))
    return Frequencies(
        _scaled(base, tables[SHORT], settings),
        base,
        _magnitude(settings),
        long_inv_freq=_scaled(base, tables[LONG], settings),
        switch_context=settings.original_context,
    )


def _sliding(settings: Settings, *, rule: str) -> Frequencies:
    """Layers with a window: never scaled; gemma3 has a base of its own, and R reaches it."""
    if rule == "global_base":
        base = _powers(settings.base, settings.dimension)
        return Frequencies(base, base, 1.0)
    base = _powers(settings.base_sliding, settings.dimension)
    kernel = 1.0 + 0.1 * math.log(1.0 / settings.scale) if settings.yarn else 1.0
    return Frequencies(base, base, _magnitude(settings) / kernel)


def _divisors(tensors: Mapping[str, Table], name: str, settings: Settings, loader: Loader) -> Array | None:
    if name not in tensors or name not in loader.divisors[settings.kind]:
        return None
    return _read(tensors[name])


def _powers(base: float, dimension: int) -> Array:
    """(d/2,) base ** (-2i/d), as the repeated product by theta_scale that ggml makes, without its rounding."""
    return np.asarray(np.power(base, -2.0 / dimension) ** np.arange(dimension // 2), np.float64)


def _scaled(base: Array, divisors: Array | None, settings: Settings) -> Array:
    """theta a token: divided by the pair's divisor, then interpolated; with YaRN mixed by the ramp."""
    extrapolated = base if divisors is None else base / divisors
    interpolated = settings.scale * extrapolated
    if not settings.yarn:
        return interpolated
    low, high = _correction_dims(settings)
    pairs = np.arange(settings.dimension // 2)
    mix = 1.0 - np.clip((pairs - low) / max(0.001, high - low), 0.0, 1.0)
    return np.asarray(interpolated * (1.0 - mix) + extrapolated * mix, np.float64)


def _correction_dims(settings: Settings) -> tuple[float, float]:
    """First and last pair of the ramp. In float32 as ggml, because floor and ceil turn a rounding into a whole pair."""

    def pair(turns: float) -> float:
        length = np.float32(settings.original_context) / (np.float32(turns * 2) * np.float32(math.pi))
        return float(np.float32(settings.dimension) * np.log(length) / (2 * np.log(np.float32(settings.base))))

    return max(0.0, math.floor(pair(BETA_FAST))), min(settings.dimension - 1.0, math.ceil(pair(BETA_SLOW)))


def _magnitude(settings: Settings) -> float:
    """Multiplier of cos and sin in full layers: R, times 1 + 0.1 ln s under YaRN when s > 1."""
    if not settings.yarn or settings.scale >= 1.0:
        return settings.attention
    return settings.attention * (1.0 + 0.1 * math.log(1.0 / settings.scale))
