"""Numbers about a model: sizes, rotary embedding by layer type, bytes of weights and of the key/value cache."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ropeconv.arch._base import Dims
from ropeconv.model import Model, Tensor
from ropeconv.rope.spec import Frequencies, Rope

# bytes a value of llama.cpp's cache types; Q8_0 keeps a 2-byte scale for 32 values
CACHE_TYPES = {"F32": 4.0, "F16": 2.0, "Q8_0": 34 / 32}


def model_facts(model: Model) -> dict[str, Any]:
    """Everything that the headers tell, as JSON values; lengths in tokens, sizes in bytes."""
    dims, rope = model.dims, model.main_rope
    lengths = list(dict.fromkeys((rope.original_context, rope.context)))
    return {
        "family": model.arch.name,
        "parameters": sum(math.prod(model.tensor(name).shape) for name in model.weights),
        "layers": dims.num_layers,
        "hidden_size": dims.hidden_size,
        "heads": dims.num_heads,
        "kv_heads": dims.num_kv_heads,
        "head_dim": dims.head_dim,
        "vocab_size": dims.vocab_size,
        "tied_embeddings": dims.tied,
        "sliding_window": dims.sliding_window,
        "original_context": rope.original_context,
        "context": rope.context,
        "rope": {layer: rope_facts(model, layer) for layer in model.ropes},
        "weight_bytes": weight_bytes({name: model.tensor(name) for name in model.weights}),
        "kv_cache_bytes": {str(length): cache_bytes(dims, model.layer_types, length) for length in lengths},
    }


def rope_facts(model: Model, layer: str) -> dict[str, Any] | None:
    """The rotary embedding of one layer type, None where there is none."""
    rope, found = model.ropes[layer], model.frequencies[layer]
    if rope is None or found is None:
        return None
    count = sum(kind == layer for kind in model.layer_types)
    return {"layers": count, "kind": rope.kind, "theta": rope.theta, **_parameters(rope), **_numbers(found, rope)}


def _parameters(rope: Rope) -> dict[str, Any]:
    factor = getattr(rope.parameters, "factor", None)
    return {} if factor is None else {"factor": factor}


def _numbers(found: Frequencies, rope: Rope) -> dict[str, Any]:
    return frequency_facts(found, trained=rope.original_context, context=rope.context)


def frequency_facts(found: Frequencies, *, trained: int, context: int) -> dict[str, Any]:
    """Wavelengths 2 pi / inv_freq in tokens, divisors, magnitude.

    incomplete: pairs that never complete a turn inside the trained context, unscaled; what they say of a distance past it
    the model has not seen. incomplete_after: the same for the scaled pairs inside the whole new context.
    """
    tables = [found.inv_freq] + ([] if found.long_inv_freq is None else [found.long_inv_freq])
    rho = [float(value) for table in (found.rho, found.long_rho) if table is not None for value in table if math.isfinite(value)]
    turning = tables[-1][tables[-1] > 0]
    return {
        "pairs": len(found.inv_freq),
        "wavelengths": [float(2 * math.pi / turning.max()), float(2 * math.pi / turning.min())],
        "incomplete": _incomplete(found.base_inv_freq, trained),
        "incomplete_after": _incomplete(tables[-1], context),
        "divisors": [min(rho), max(rho)],
        "attention_factor": found.attention_factor,
        "switch_context": found.switch_context,
    }


def _incomplete(inv_freq: Any, length: int) -> int:
    return int(np.sum(np.asarray(inv_freq) * length < 2 * math.pi))


def weight_bytes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Storage type -> bytes."""
    found: dict[str, int] = {}
    for tensor in tensors.values():
        found[tensor.dtype] = found.get(tensor.dtype, 0) + tensor.shape[0] * tensor.raw_rows(0, 1).nbytes
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def cache_bytes(dims: Dims, layer_types: Sequence[str], length: int) -> dict[str, int]:
    """Cache type -> bytes for one sequence of `length` tokens; a sliding layer keeps its window only."""
    window = dims.sliding_window or length
    tokens = sum(min(length, window) if kind == "sliding_attention" else length for kind in layer_types)
    values = 2 * dims.num_kv_heads * dims.head_dim * tokens
    return {name: round(values * size) for name, size in CACHE_TYPES.items()}
