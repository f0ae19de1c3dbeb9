"""What llama.cpp will rotate by, read back from a finished file's keys and tensors.

This restates llama.cpp, not ropeconv: settings.py, the magnitude in the constructor of
src/llama-context.cpp, `ggml_rope_yarn_corr_dims` (ggml/src/ggml.c), `rope_yarn` (ggml-cpu/ops.cpp)
and the sliding layers of src/models/gemma3.cpp and olmo2.cpp. It shares no formula with
`ropeconv/rope`, so that a mistake there cannot hide here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from converters.to_gguf.archs import architectures
from converters.to_gguf.rope.loader import AS_FULL, FREQS, GLOBAL_BASE, LONG, SHORT, TABLES, Loader
from converters.to_gguf.rope.settings import (
    Array,
    Settings,
    Table,
    layer_kinds,
    read_settings,
    read_table,
    rope_problems,
)
from ropeconv.arch.layers import FULL, SLIDING, STILL
from ropeconv.errors import ConfigError
from ropeconv.rope.spec import Frequencies

__all__ = ["frequencies", "magnitude", "rope_problems", "score_factor"]

# fixed: only grok's and mistral3's loaders read the yarn_beta keys
BETA_FAST, BETA_SLOW = 32.0, 1.0


def frequencies(
    metadata: Mapping[str, Any], tensors: Mapping[str, Table], *, lenient: bool = False
) -> dict[str, Frequencies | None]:
    """Layer kind -> the angles (radians a token, per pair) and magnitude of llama.cpp for this
    file; None where a kind does not rotate.

    metadata: every key of the file; tensors: by GGUF name, lazy or as float32 arrays. With more
    context allocated than `switch_context`, every token uses `long_inv_freq`. lenient: see
    `rope_problems`. Raises ConfigError with the first of `rope_problems`.
    """
    problems = rope_problems(metadata, tensors, lenient=lenient)
    if problems:
        raise ConfigError(problems[0])
    own = architectures()[metadata["general.architecture"]].loader
    loader = own.lenient if lenient else own
    settings, kinds = read_settings(metadata), layer_kinds(metadata)
    full = _full(settings, tensors, loader)
    as_full = loader.sliding == AS_FULL
    by_kind: dict[str, Callable[[], Frequencies | None]] = {
        FULL: lambda: full,
        SLIDING: lambda: full if as_full else _sliding(settings, rule=str(loader.sliding)),
        **dict.fromkeys(STILL, lambda: None),
    }
    return {kind: find() for kind, find in by_kind.items() if kind in kinds}


def _full(settings: Settings, tensors: Mapping[str, Table], loader: Loader) -> Frequencies:
    tables = {name: _divisors(tensors, name, settings, loader) for name in TABLES}
    base = _powers(settings.base, settings.dimension)
    if tables[FREQS] is not None or (tables[LONG] is None and tables[SHORT] is None):
        return Frequencies(_scaled(base, tables[FREQS], settings), base, magnitude(settings))
    return Frequencies(
        _scaled(base, tables[SHORT], settings),
        base,
        magnitude(settings),
        long_inv_freq=_scaled(base, tables[LONG], settings),
        switch_context=settings.original_context,
    )


def _sliding(settings: Settings, *, rule: str) -> Frequencies:
    """Layers with a window: never scaled; gemma3 has a base of its own, and R reaches it."""
    if rule == GLOBAL_BASE:
        base = _powers(settings.base, settings.dimension)
        return Frequencies(base, base, 1.0)
    base = _powers(settings.base_sliding, settings.dimension_sliding)
    kernel = 1.0 + 0.1 * math.log(1.0 / settings.scale) if settings.yarn else 1.0
    return Frequencies(base, base, magnitude(settings) / kernel)


def _divisors(
    tensors: Mapping[str, Table], name: str, settings: Settings, loader: Loader
) -> Array | None:
    if name not in tensors or not loader.takes(name, scaling=settings.kind):
        return None
    return read_table(tensors[name])


def _powers(base: float, dimension: int) -> Array:
    """(d/2,) base ** (-2i/d), as ggml's repeated product by theta_scale, without its rounding."""
    return np.asarray(np.power(base, -2.0 / dimension) ** np.arange(dimension // 2), np.float64)


def _scaled(base: Array, divisors: Array | None, settings: Settings) -> Array:
    """theta a token: divided by the pair's divisor, interpolated; with YaRN mixed by the ramp."""
    extrapolated = base if divisors is None else base / divisors
    interpolated = settings.scale * extrapolated
    if not settings.yarn:
        return interpolated
    low, high = _correction_dims(settings)
    pairs = np.arange(settings.dimension // 2)
    mix = 1.0 - np.clip((pairs - low) / max(0.001, high - low), 0.0, 1.0)
    return np.asarray(interpolated * (1.0 - mix) + extrapolated * mix, np.float64)


def _correction_dims(settings: Settings) -> tuple[float, float]:
    """First and last pair of the ramp.

    In float32 as ggml, because floor and ceil turn a rounding into a whole pair.
    """

    def pair(turns: float) -> float:
        length = np.float32(settings.original_context) / (
            np.float32(turns * 2) * np.float32(math.pi)
        )
        octaves = 2 * np.log(np.float32(settings.base))
        return float(np.float32(settings.dimension) * np.log(length) / octaves)

    low, high = math.floor(pair(BETA_FAST)), math.ceil(pair(BETA_SLOW))
    return max(0.0, low), min(settings.dimension - 1.0, high)


def magnitude(settings: Settings) -> float:
    """Multiplier of cos and sin in full layers: R, times 1 + 0.1 ln s under YaRN when s > 1, but
    where the logarithm's multiplier is stated.
    """
    if not settings.yarn or settings.scale >= 1.0 or settings.log_multiplier:
        return settings.attention
    return settings.attention * (1.0 + 0.1 * math.log(1.0 / settings.scale))


def score_factor(metadata: Mapping[str, Any]) -> float:
    """What the graph multiplies scores by beside the root of a head's size.

    kq_scale of src/models/deepseek2.cpp, whose attn_factor YaRN without a multiplier has made R,
    and with one R / (1 + 0.1 ln s); 1 for graphs that scale none.
    """
    if not architectures()[metadata["general.architecture"]].loader.scales_scores:
        return 1.0
    settings = read_settings(metadata)
    logarithm = 0.1 * math.log(1.0 / settings.scale)
    cancelled = settings.yarn and settings.log_multiplier
    own = settings.attention * (1.0 if cancelled else 1.0 + logarithm)
    return float((own * (1.0 + settings.log_multiplier * logarithm)) ** 2)
