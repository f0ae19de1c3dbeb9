"""Keys of latent attention in its absorbed form, in which all heads share one key: a latent and
what rotates.

Sources: llama.cpp src/models/deepseek2.cpp, src/llama-hparams.cpp (`is_mla`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import OwnKeys, Stated
from converters.to_gguf.file.keys import KeyValue, uint32
from converters.to_gguf.rope.settings import KEY_HEADS
from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.mla import EPSILON, LatentAttention, LowRank
from ropeconv.arch.blocks.weight import Linear
from ropeconv.errors import CheckpointError
from ropeconv.model import Model

QUERY_RANK, LATENT = "attention.q_lora_rank", "attention.kv_lora_rank"
KEY, VALUE = "attention.key_length", "attention.value_length"
KEY_OF_HEAD, VALUE_OF_HEAD = "attention.key_length_mla", "attention.value_length_mla"
ROTARY = "rope.dimension_count"
ELSEWHERE = "take `ropeconv onnx` or `ropeconv safetensors`"


def latent(model: Model) -> LatentAttention:
    """The block of the first layer."""
    block = model.stack.attention
    assert isinstance(block, LatentAttention)
    return block


def query_rank(query: Linear | LowRank) -> int:
    """Values that queries are made of, 0 where they are made of the hidden state itself."""
    return query.down.weight.shape[0] if isinstance(query, LowRank) else 0


def _write(model: Model) -> list[KeyValue]:
    block = latent(model)
    return [
        uint32(KEY_HEADS, 1),
        uint32(KEY, block.latent_dim + block.rotary_size),
        uint32(VALUE, block.latent_dim),
        uint32(KEY_OF_HEAD, block.head_dim),
        uint32(VALUE_OF_HEAD, block.value_dim),
        uint32(LATENT, block.latent_dim),
        uint32(QUERY_RANK, query_rank(block.query)),
    ]


def whole_sizes(stated: Stated, *keys: str) -> dict[str, int]:
    """The values of these keys; CheckpointError for one that is no size."""
    found = {key: stated.get(key) for key in keys}
    for key, value in found.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(
                f"the GGUF file has no usable {stated.arch.name}.{key}, a size of its latent "
                f"attention; convert the original checkpoint"
            )
    return found


def _read(stated: Stated) -> Mapping[str, Any]:
    found = whole_sizes(stated, LATENT, KEY, VALUE, KEY_OF_HEAD, VALUE_OF_HEAD, ROTARY)
    rotary = found[ROTARY]
    return {
        "num_kv_heads": stated.get("attention.head_count"),
        "latent_dim": found[LATENT],
        "query_rank": stated.get(QUERY_RANK) or None,
        "still_dim": found[KEY_OF_HEAD] - rotary,
        "rotary_size": rotary,
        "value_dim": found[VALUE_OF_HEAD],
        "head_dim": rotary,
        "query_dim": found[KEY_OF_HEAD],
    }


def other_epsilon(model: Model) -> str | None:
    """Why llama.cpp, which has one epsilon for all norms, does not run the model."""
    if model.stack.head.norm.eps:
        return None
    return (
        f"llama.cpp norms latents with rms_norm_eps, 0, where transformers takes {EPSILON:g}; "
        f"{ELSEWHERE}"
    )


def other_pairs(model: Model, pairing: Pairing) -> str | None:
    """Why a graph that turns such pairs alone does not run the model."""
    own = latent(model).pairing
    if own is pairing:
        return None
    return (
        f"llama.cpp turns {pairing.value} pairs of latent attention, this model {own.value} ones "
        f"(rope_interleave), and no key of a file says which; {ELSEWHERE}"
    )


ABSORBED = OwnKeys(_write, _read, plain=lambda _: False, cannot=other_epsilon)
"""Sizes of latent attention whose heads share a latent. A file in its older form, with attn_kv_b in
one, is refused for want of them.
"""
