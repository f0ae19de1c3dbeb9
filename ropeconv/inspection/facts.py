"""Numbers about a model: sizes, rotary embedding by layer type, bytes of weights and of the
key/value cache.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from ropeconv.arch.stack import Stack
from ropeconv.kit.float_types import BYTES
from ropeconv.model import Model, Tensor, row_count
from ropeconv.rope.spec import Frequencies, Rope

# bytes a value of llama.cpp's cache types; Q8_0 keeps a 2-byte scale for 32 values
CACHE_TYPES = {"F32": 4.0, "F16": 2.0, "Q8_0": 34 / 32}


def model_facts(model: Model) -> dict[str, Any]:
    """Everything that the headers tell, as JSON values; lengths in tokens, sizes in bytes."""
    stack = model.stack
    rope = model.main_rope
    attention = stack.attention
    lengths = list(dict.fromkeys((rope.original_context, rope.context)))
    return {
        "family": model.arch.name,
        "parameters": sum(math.prod(model.tensor(name).shape) for name in model.weights),
        "layers": len(stack.layers),
        "hidden_size": stack.hidden_size,
        "heads": attention.num_heads,
        "kv_heads": attention.num_kv_heads,
        "head_dim": attention.head_dim,
        "vocab_size": stack.vocab_size,
        "tied_embeddings": stack.tied,
        "sliding_window": stack.window,
        "original_context": rope.original_context,
        "context": rope.context,
        "rope": {layer: rope_facts(model, layer) for layer in model.ropes},
        "weight_bytes": weight_bytes({name: model.tensor(name) for name in model.weights}),
        "kv_cache_bytes": {str(length): cache_bytes(stack, length) for length in lengths},
    }


def rope_facts(model: Model, layer: str) -> dict[str, Any] | None:
    """The rotary embedding of one layer type, None where there is none."""
    rope = model.ropes[layer]
    found = model.frequencies[layer]
    if rope is None or found is None:
        return None
    count = model.stack.kinds.count(layer)
    return {
        "layers": count,
        "kind": rope.kind,
        "theta": rope.theta,
        **_parameters(rope),
        **_numbers(found, rope),
    }


def _parameters(rope: Rope) -> dict[str, Any]:
    factor = getattr(rope.parameters, "factor", None)
    return {} if factor is None else {"factor": factor}


def _numbers(found: Frequencies, rope: Rope) -> dict[str, Any]:
    return frequency_facts(found, trained=rope.original_context, context=rope.context)


def frequency_facts(found: Frequencies, *, trained: int, context: int) -> dict[str, Any]:
    """Wavelengths 2 pi / inv_freq in tokens, divisors, magnitude.

    incomplete: pairs that never complete a turn inside the trained context, unscaled; what they say
    of a distance past it the model has not seen. incomplete_after: the same for the scaled pairs
    inside the whole new context.
    """
    tables = [found.inv_freq] + ([] if found.long_inv_freq is None else [found.long_inv_freq])
    rho = [
        float(value)
        for table in (found.rho, found.long_rho)
        if table is not None
        for value in table
        if math.isfinite(value)
    ]
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
        row = BYTES.get(tensor.dtype, 0) * prod(tensor.shape[1:])  # a row in blocks is asked for
        size = row_count(tensor.shape) * (row or tensor.raw_rows(0, 1).nbytes)
        found[tensor.dtype] = found.get(tensor.dtype, 0) + size
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def cache_bytes(stack: Stack, length: int) -> dict[str, int]:
    """Cache type -> bytes for one sequence of `length` tokens; a sliding layer keeps its window
    only.
    """
    values = sum(block.cached(length) for block in stack.attentions.values())
    return {name: round(values * size) for name, size in CACHE_TYPES.items()}
