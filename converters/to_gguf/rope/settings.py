"""The rotary settings that llama.cpp holds once it has loaded a file, and why it would not load it.

This restates `load_hparams` and `get_rope_factors` of llama.cpp's src/llama-model.cpp, with its
defaults where the file is silent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.archs import architectures
from converters.to_gguf.rope.loader import DEFAULT_TYPE, FREQS, SCALING_TYPES, TABLES, Loader
from ropeconv.arch.layers import FULL, NO_ROPE, SLIDING
from ropeconv.errors import CheckpointError
from ropeconv.model import Tensor

Array = NDArray[np.float64]
Table = Tensor | NDArray[np.float32]
REQUIRED = ("context_length", "embedding_length", "attention.head_count", "block_count")
OPTIONAL = (
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.dimension_count",
    "rope.dimension_count_swa",
    "rope.scale_linear",
)
DEFAULT_BASE = 10000.0
KEY_HEADS = "attention.head_count_kv"
RECURRENT, INTERVAL = "attention.recurrent_layers", "full_attention_interval"
LOG_MULTIPLIER = "rope.scaling.yarn_log_multiplier"
UNIT = 0.1  # files state it times this


@dataclass(frozen=True)
class Settings:
    """The settings after loading.

    dimension: rotary values of a head; dimension_sliding: in layers with a window. scale:
    freq_scale = 1 / factor. attention: the key attn_factor, R. log_multiplier: y, what YaRN's
    logarithm is multiplied by in scores, of graphs that scale them; 0 = not stated.
    """

    kind: str
    dimension: int
    base: float
    base_sliding: float
    scale: float
    original_context: int
    attention: float
    window: int
    dimension_sliding: int = 0
    log_multiplier: float = 0.0

    @property
    def yarn(self) -> bool:
        """Whether the YaRN ramp and magnitude act (ext_factor is 1)."""
        return self.kind == "yarn"


def read_settings(metadata: Mapping[str, Any]) -> Settings:
    """The settings after loading, of a file whose keys are sound (`rope_problems`)."""
    arch = metadata["general.architecture"]
    loader = architectures()[arch].loader

    def value(key: str, default: float) -> float:
        return float(metadata.get(f"{arch}.{key}", default))

    kind = str(metadata.get(f"{arch}.rope.scaling.type", DEFAULT_TYPE))
    factor = value("rope.scaling.factor", value("rope.scale_linear", 0.0))
    context = value("context_length", 0.0)
    dimension = int(value("rope.dimension_count", head_size(metadata))) // loader.divided_by
    return Settings(
        kind=kind,
        dimension=dimension,
        dimension_sliding=int(value("rope.dimension_count_swa", dimension)),
        base=value("rope.freq_base", DEFAULT_BASE),
        base_sliding=value("rope.freq_base_swa", DEFAULT_BASE),
        scale=1.0 if kind == "none" or factor == 0.0 else 1.0 / factor,
        original_context=int(value("rope.scaling.original_context_length", context))
        or int(context),
        attention=value("rope.scaling.attn_factor", 1.0),
        window=int(value("attention.sliding_window", 0.0)),
        log_multiplier=_multiplier(metadata) / UNIT if loader.scales_scores else 0.0,
    )


def _multiplier(metadata: Mapping[str, Any]) -> float:
    """The key's number; 0 for what is none, which `rope_problems` tells."""
    stated = metadata.get(f"{metadata['general.architecture']}.{LOG_MULTIPLIER}")
    return float(stated) if isinstance(stated, int | float) and math.isfinite(stated) else 0.0


def count_layers(metadata: Mapping[str, Any]) -> int:
    """Layers that the graph runs: `block_count` counts those of multi-token prediction too."""
    arch = metadata["general.architecture"]
    spare = metadata.get(f"{arch}.nextn_predict_layers") or 0
    return int(metadata[f"{arch}.block_count"] - spare)


def layer_kinds(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """One kind a layer (ropeconv/arch/layers.py), as the architecture's loader and graph decide."""
    windowed, rotated = sliding_layers(metadata), _rotated_layers(metadata)
    _check_count(metadata, windowed)
    kinds = [
        (SLIDING if window else FULL) if rotates else NO_ROPE
        for window, rotates in zip(windowed, rotated, strict=True)
    ]
    arch = metadata["general.architecture"]
    recurrent = architectures()[arch].loader.recurrent
    if recurrent is None:
        return tuple(kinds)
    flags = _attention_layers(metadata)
    _check_count(metadata, flags)
    return tuple(kind if flag else recurrent for kind, flag in zip(kinds, flags, strict=True))


def _check_count(metadata: Mapping[str, Any], flags: Sequence[bool]) -> None:
    """CheckpointError unless there is one for each layer."""
    layers = count_layers(metadata)
    if len(flags) != layers:
        raise CheckpointError(
            f"the GGUF file's {metadata['general.architecture']} keys tell {len(flags)} layers "
            f"apart, it has {layers}; convert it again"
        )


def _attention_layers(metadata: Mapping[str, Any]) -> list[bool]:
    """Whether each layer has attention, of an architecture that has others."""
    arch = metadata["general.architecture"]
    layers, loader = count_layers(metadata), architectures()[arch].loader
    if loader.heads_by_layer:
        return [bool(count) for count in _key_heads(metadata)]
    flags = metadata.get(f"{arch}.{RECURRENT}")
    if flags is not None:
        by_layer = flags if isinstance(flags, list) else [flags] * layers
        return [not flag for flag in by_layer[:layers]]
    every = metadata.get(f"{arch}.{INTERVAL}") or loader.attention_every
    return [(layer + 1) % every == 0 for layer in range(layers)]


def _key_heads(metadata: Mapping[str, Any]) -> list[int]:
    """Key/value heads of each layer: as many as heads where the file does not say."""
    arch = metadata["general.architecture"]
    layers = count_layers(metadata)
    stated = metadata.get(f"{arch}.{KEY_HEADS}") or metadata[f"{arch}.attention.head_count"]
    return list(stated)[:layers] if isinstance(stated, list) else [stated] * layers


def sliding_layers(metadata: Mapping[str, Any]) -> list[bool]:
    """Whether each layer has a window, as the architecture's loader decides."""
    arch = metadata["general.architecture"]
    layers, loader = count_layers(metadata), architectures()[arch].loader
    if loader.sliding is None or not metadata.get(f"{arch}.attention.sliding_window"):
        return [False] * layers
    pattern = metadata.get(f"{arch}.attention.sliding_window_pattern", loader.pattern)
    if isinstance(pattern, int) and not isinstance(pattern, bool):
        return [not pattern or layer % pattern < pattern - 1 for layer in range(layers)]
    return [bool(entry) for entry in pattern][:layers]


def _rotated_layers(metadata: Mapping[str, Any]) -> list[bool]:
    """Whether each layer rotates."""
    arch = metadata["general.architecture"]
    layers, loader = count_layers(metadata), architectures()[arch].loader
    flags = metadata.get(f"{arch}.attention.rope_pattern") if loader.rope_pattern else None
    if flags is not None:
        return [bool(flag) for flag in flags][:layers]
    step = loader.still_every
    return [not step or (layer + 1) % step != 0 for layer in range(layers)]


def rope_problems(
    metadata: Mapping[str, Any], tensors: Mapping[str, Table], *, lenient: bool = False
) -> list[str]:
    """Why llama.cpp would refuse, abort on or misread the rotary settings.

    One line each, empty = sound. lenient: tables that the loader has no place for are no problem.
    """
    arch = str(metadata.get("general.architecture"))
    known = architectures()
    if arch not in known:
        names = ", ".join(sorted(known))
        return [
            f"general.architecture is {arch!r}; the proof knows how llama.cpp rotates in {names}"
        ]
    loader = known[arch].loader.lenient if lenient else known[arch].loader
    problems = _key_problems(metadata, arch)
    if problems:
        return problems
    settings = read_settings(metadata)
    return [
        *_dimension_problems(metadata, settings, loader),
        *_table_problems(settings, tensors, loader),
    ]


def _key_problems(metadata: Mapping[str, Any], arch: str) -> list[str]:
    kind = metadata.get(f"{arch}.rope.scaling.type", DEFAULT_TYPE)
    if kind not in SCALING_TYPES:
        return [
            f"{arch}.rope.scaling.type is {kind!r}, on which llama.cpp aborts; "
            f"it knows {', '.join(SCALING_TYPES)}"
        ]
    required, optional = ([f"{arch}.{key}" for key in keys] for keys in (REQUIRED, OPTIONAL))
    missing = [key for key in required if not _positive(metadata.get(key))]
    if missing:
        return [
            f"{missing[0]} is missing or not a positive number; llama.cpp does not load the file"
        ]
    multiplier = f"{arch}.{LOG_MULTIPLIER}"
    if metadata.get(multiplier, 0) != 0 and not _multiplier(metadata):
        return [f"{multiplier} is {metadata[multiplier]!r}; a finite number is expected"]
    return [
        f"{key} is {metadata[key]!r}; a finite number that is not negative is expected"
        for key in optional
        if key in metadata and not _positive(metadata[key], zero=True)
    ]


def _positive(value: Any, *, zero: bool = False) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and (value > 0 or (zero and value == 0))


def head_size(metadata: Mapping[str, Any]) -> int:
    """Values of one head, as the loader takes them."""
    arch = metadata["general.architecture"]
    width = metadata[f"{arch}.embedding_length"] // metadata[f"{arch}.attention.head_count"]
    return int(metadata.get(f"{arch}.attention.key_length", width))


def _dimension_problems(
    metadata: Mapping[str, Any], settings: Settings, loader: Loader
) -> list[str]:
    arch, head = metadata["general.architecture"], head_size(metadata)
    key = f"{arch}.rope.dimension_count"
    if loader.whole_head and settings.dimension != head:
        return [
            f"{key} is {settings.dimension}, heads have {head} values; "
            f"llama.cpp rotates whole heads in {arch}"
        ]
    if settings.dimension % 2 or not 0 < settings.dimension <= head:
        return [
            f"{key} is {settings.dimension}; an even number up to the head's {head} values "
            f"is expected"
        ]
    sliding = metadata.get(f"{arch}.attention.key_length_swa", head)
    if settings.dimension_sliding % 2 or not 0 < settings.dimension_sliding <= sliding:
        return [
            f"{key}_swa is {settings.dimension_sliding}; an even number up to the {sliding} values "
            f"of heads in layers with a window is expected"
        ]
    if settings.base <= 1.0:
        return [f"{arch}.rope.freq_base is {settings.base:g}; a base above 1 is expected"]
    return []


def _table_problems(settings: Settings, tensors: Mapping[str, Table], loader: Loader) -> list[str]:
    problems, pairs = [], settings.dimension // 2
    if loader.needs_table and FREQS not in tensors:
        problems.append(f"{FREQS} is missing; llama.cpp does not load the file")
    for name in (name for name in TABLES if name in tensors):
        tensor = tensors[name]
        if name in loader.unused:
            problems.append(f"{name} is loaded and never used: what it should scale runs unscaled")
        elif not loader.takes(name, scaling=settings.kind):
            problems.append(
                f"{name} has no place with scaling type {settings.kind}; "
                f"llama.cpp does not load the file"
            )
        elif tuple(tensor.shape) != (pairs,) or str(tensor.dtype) not in {"F32", "float32"}:
            shape = tuple(tensor.shape)
            problems.append(f"{name} is {tensor.dtype} {shape}; llama.cpp reads F32 ({pairs},)")
        elif not np.all(read_table(tensor) > 0):
            problems.append(
                f"{name} holds a divisor that is not above zero; the angles would be meaningless"
            )
    return problems


def read_table(table: Table) -> Array:
    """A table's numbers."""
    values = table if isinstance(table, np.ndarray) else table.rows(0, table.shape[0])
    return np.asarray(values, np.float64)
