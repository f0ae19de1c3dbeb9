"""Rotary keys and tables of a GGUF file -> the `rope_parameters` of a Hugging Face config."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from converters.to_gguf.families import ROPE_TABLES, Layout
from converters.to_gguf.run_rope import LENIENT, frequencies
from ropeconv.arch._base import Architecture, Dims
from ropeconv.errors import CheckpointError
from ropeconv.model import Tensor


def rope_config(
    metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], layout: Layout, arch: Architecture, dims: Dims
) -> dict[str, Any]:
    """`rope_parameters` and the context keys that make transformers rotate as llama.cpp does with this file."""

    def get(key: str, default: Any = None) -> Any:
        return metadata.get(f"{layout.arch}.{key}", default)

    context = get("context_length")
    if not isinstance(context, int) or context <= 0:
        raise CheckpointError(f"the GGUF file has no {layout.arch}.context_length; its trained context is unknown")
    trained = get("rope.scaling.original_context_length", context)
    rotary_dim = get("rope.dimension_count", dims.head_dim)
    if any(name in tensors for name in ROPE_TABLES):
        scaling = _as_divisors(metadata, tensors, trained=trained, context=context)
    else:
        scaling = _scaling(get, trained=trained, context=context, pairs=rotary_dim // 2)
    if arch.rope_types is not None and scaling["rope_type"] not in arch.rope_types:
        scaling = _as_divisors(metadata, tensors, trained=trained, context=context)
    full = {"rope_theta": _short_theta(get("rope.freq_base", 10000.0)), **scaling}
    if arch.takes_partial:
        full["partial_rotary_factor"] = rotary_dim / dims.head_dim
    keys: dict[str, Any] = {"max_position_embeddings": context}
    if trained != context:
        keys["original_max_position_embeddings"] = trained
    if not arch.nested_rope:
        return {**keys, "rope_parameters": full}
    base = _short_theta(get("rope.freq_base_swa", 10000.0))
    sliding = {"rope_type": "default", "rope_theta": base}
    return {**keys, "rope_parameters": {"full_attention": full, "sliding_attention": sliding}}


def _scaling(get: Any, *, trained: int, context: int, pairs: int) -> dict[str, Any]:
    kind = get("rope.scaling.type", "linear")
    factor = float(get("rope.scaling.factor", get("rope.scale_linear", 1.0)) or 1.0)
    rest = float(get("rope.scaling.attn_factor", 1.0))
    if kind == "yarn" and factor != 1.0:
        magnitude = rest * (1 + 0.1 * math.log(factor) if factor > 1 else 1.0)
        own = {} if rest == 1.0 else {"attention_factor": magnitude}
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": trained, **own}
    if kind == "longrope":
        raise CheckpointError("the GGUF file says longrope but holds no factor tables: llama.cpp runs it unscaled; convert again")
    if rest != 1.0:
        even = [1.0 if kind == "none" else factor] * pairs
        return _longrope(even, even, trained=trained, context=context, magnitude=rest)
    if factor != 1.0 and kind != "none":
        return {"rope_type": "linear", "factor": factor}
    return {"rope_type": "default"}


def _longrope(short: list[float], long: list[float], *, trained: int, context: int, magnitude: float) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "factor": context / trained,
        "attention_factor": magnitude,
        "original_max_position_embeddings": trained,
    }


def _as_divisors(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], *, trained: int, context: int) -> dict[str, Any]:
    """LongRoPE with the numbers that llama.cpp computes from tables, type and factor together.

    A table that the loader refuses counts too: the doctor reports the file and mends it from this reading.
    """
    solved = frequencies(metadata, tensors, loaders=LENIENT)["full_attention"]
    short = [float(value) for value in solved.rho]
    long = short if solved.long_rho is None else [float(value) for value in solved.long_rho]
    return _longrope(short, long, trained=trained, context=context, magnitude=solved.attention_factor)


def _short_theta(value: float) -> float:
    """The decimal that was meant by a float32 base: 100000.0."""
    from numpy import float32

    return float(str(float32(value)))
