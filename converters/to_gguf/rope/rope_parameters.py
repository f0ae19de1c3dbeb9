"""Rotary keys and tables of a GGUF file -> the `rope_parameters` of a Hugging Face config."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from converters.to_gguf.archs._arch import Stated
from converters.to_gguf.rope.loader import DEFAULT_TYPE, FREQS, GLOBAL_BASE, STILL, TABLES
from converters.to_gguf.rope.run_rope import frequencies, magnitude, score_factor
from converters.to_gguf.rope.settings import DEFAULT_BASE, head_size, read_settings, read_table
from ropeconv.arch.family import RopeSpelling
from ropeconv.arch.layers import FULL, SLIDING
from ropeconv.errors import CheckpointError
from ropeconv.model import Tensor, main_of
from ropeconv.rope.build import find_kind
from ropeconv.rope.solve import solve
from ropeconv.rope.spec import Frequencies, Rope

TRAINED = "original_max_position_embeddings"


def rope_config(
    stated: Stated, tensors: Mapping[str, Tensor], spelling: RopeSpelling, *, head_dim: int
) -> dict[str, Any]:
    """`rope_parameters` and the context keys for which transformers rotates as llama.cpp does."""
    context = stated.get("context_length")
    if not isinstance(context, int) or context <= 0:
        name = stated.arch.name
        raise CheckpointError(
            f"the GGUF file has no {name}.context_length; its trained context is unknown"
        )
    trained = stated.get("rope.scaling.original_context_length", context)
    rotary_dim = rotary_size(stated, tensors, spelling)
    pairs = rotary_dim // 2
    scaling = _scaling(stated, tensors, trained=trained, context=context, pairs=pairs)
    if spelling.rope_types is not None and scaling["rope_type"] not in spelling.rope_types:
        scaling = _as_divisors(stated, tensors, trained=trained, context=context, pairs=pairs)
    _refuse_scores(stated, scaling)
    full = {"rope_theta": shortest(stated.get("rope.freq_base", DEFAULT_BASE)), **scaling}
    if spelling.takes_partial:
        full["partial_rotary_factor"] = rotary_dim / head_dim
    keys: dict[str, Any] = {"max_position_embeddings": context}
    if trained != context:
        keys[TRAINED] = trained
    if not spelling.nested:
        return {**keys, "rope_parameters": full}
    base = shortest(stated.get("rope.freq_base_swa", DEFAULT_BASE))
    if stated.arch.loader.sliding == GLOBAL_BASE:
        base = full["rope_theta"]
    sliding = {"rope_type": "default", "rope_theta": base}
    return {**keys, "rope_parameters": {FULL: full, SLIDING: sliding}}


def rotary_size(stated: Stated, tensors: Mapping[str, Tensor], spelling: RopeSpelling) -> int:
    """How many values of a head rotate.

    Where a loader rotates whole heads and the family a part, the pairs beyond it stand still.
    """
    dimension, head = read_settings(stated.metadata).dimension, head_size(stated.metadata)
    if not 0 < dimension <= head:
        raise CheckpointError(
            f"the GGUF file rotates {dimension} values of heads of {head}; convert it again"
        )
    if not (stated.arch.loader.whole_head and spelling.takes_partial and FREQS in tensors):
        return dimension
    return 2 * int(np.sum(read_table(tensors[FREQS]) < STILL))


def narrowed(found: Frequencies, stated: Stated, pairs: int) -> Frequencies:
    """The first `pairs` of what a graph turns, where the others stand still."""
    if 2 * pairs == read_settings(stated.metadata).dimension:
        return found
    theta = float(stated.get("rope.freq_base", DEFAULT_BASE))
    part = Rope("default", theta, 2 * pairs, 1, 1, find_kind("default").parameters())
    long = found.long_inv_freq
    return replace(
        found,
        base_inv_freq=solve(part).inv_freq,
        inv_freq=found.inv_freq[:pairs],
        long_inv_freq=None if long is None else long[:pairs],
    )


def shortest(value: float) -> float:
    """The decimal that was meant by a float32: 100000.0, 1e-05."""
    from numpy import float32

    return float(str(float32(value)))


def _scaling(
    stated: Stated, tensors: Mapping[str, Tensor], *, trained: int, context: int, pairs: int
) -> dict[str, Any]:
    if _tables(tensors):
        shares = _as_share(stated, tensors)
        return shares or _as_divisors(
            stated, tensors, trained=trained, context=context, pairs=pairs
        )
    kind = stated.get("rope.scaling.type", DEFAULT_TYPE)
    factor = stated.get("rope.scaling.factor", stated.get("rope.scale_linear", 1.0))
    factor = _sound(stated, "rope.scaling.factor", factor or 1.0)
    rest = _sound(stated, "rope.scaling.attn_factor", stated.get("rope.scaling.attn_factor", 1.0))
    if kind == "yarn" and factor != 1.0:
        found = magnitude(read_settings(stated.metadata))
        own = {} if rest == 1.0 else {"attention_factor": found}
        own |= _of_scores(stated, factor)
        return {"rope_type": "yarn", "factor": factor, TRAINED: trained, **own}
    if kind == "longrope":
        raise CheckpointError(
            "the GGUF file says longrope but holds no factor tables: llama.cpp runs it unscaled; "
            "convert again"
        )
    if rest != 1.0:
        even = [1.0 if kind == "none" else factor] * pairs
        return _longrope(even, even, trained=trained, context=context, magnitude=rest)
    if factor != 1.0 and kind != "none":
        return {"rope_type": "linear", "factor": factor}
    return {"rope_type": "default"}


def _sound(stated: Stated, key: str, value: Any) -> float:
    """The number of a key; CheckpointError for one that no model is scaled by."""
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise CheckpointError(
            f"the GGUF file's {stated.arch.name}.{key} is {value!r}; a finite number above 0 is "
            f"expected: convert it again"
        )
    return number


def _tables(tensors: Mapping[str, Tensor]) -> list[str]:
    """Tables that say something: an architecture may not load without one."""
    found = [name for name in TABLES if name in tensors]
    return [] if found == [FREQS] and np.all(read_table(tensors[FREQS]) == 1.0) else found


def _as_share(stated: Stated, tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """As `proportional`, where some pairs stand still behind others that have one divisor; None
    where a config says them otherwise.
    """
    if FREQS not in tensors or not stated.arch.loader.needs_table:
        return None
    found = main_of(frequencies(stated.metadata, tensors, lenient=True))
    rho = found.rho
    turning = int(np.sum(rho < STILL))
    share, factor = turning / len(rho), shortest(float(rho[0]))
    alike = np.allclose(rho[:turning], factor, rtol=1e-6) and np.all(rho[turning:] >= STILL)
    whole = int(share * 2 * len(rho) // 2) == turning
    if not (0 < turning < len(rho) and alike and whole and found.attention_factor == 1.0):
        return None
    return {"rope_type": "proportional", "partial_rotary_factor": share, "factor": factor}


def _of_scores(stated: Stated, factor: float) -> dict[str, float]:
    """By what transformers multiplies scores as this graph does."""
    root = math.sqrt(score_factor(stated.metadata))
    if factor <= 1 or math.isclose(root, 1.0, rel_tol=1e-6):
        return {}
    return {"mscale_all_dim": shortest((root - 1.0) / (0.1 * math.log(factor)))}


def _refuse_scores(stated: Stated, scaling: Mapping[str, Any]) -> None:
    """CheckpointError for a file whose graph multiplies scores as no config of its family says."""
    found = score_factor(stated.metadata)
    if scaling["rope_type"] == "yarn" or math.isclose(found, 1.0, rel_tol=1e-6):
        return
    raise CheckpointError(
        f"llama.cpp multiplies the scores of this GGUF file by {found:.4g} because of its "
        f"{scaling['rope_type']} scaling, which no config.json of the family says; convert the "
        f"original checkpoint"
    )


def _longrope(
    short: list[float], long: list[float], *, trained: int, context: int, magnitude: float
) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "factor": context / trained,
        "attention_factor": magnitude,
        TRAINED: trained,
    }


def _as_divisors(
    stated: Stated, tensors: Mapping[str, Tensor], *, trained: int, context: int, pairs: int
) -> dict[str, Any]:
    """LongRoPE with the numbers that llama.cpp computes from tables, type and factor together.

    A table that the loader refuses counts too: the doctor reports the file and mends it from this
    reading.
    """
    found = main_of(frequencies(stated.metadata, tensors, lenient=True))
    solved = narrowed(found, stated, pairs)
    short = [float(value) for value in solved.rho]
    long = short if solved.long_rho is None else [float(value) for value in solved.long_rho]
    magnitude = solved.attention_factor
    return _longrope(short, long, trained=trained, context=context, magnitude=magnitude)
