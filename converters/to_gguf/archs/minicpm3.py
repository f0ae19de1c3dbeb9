"""MiniCPM3: latent attention with keys and values of every head in the cache; multipliers that its
graph fixes; a pair of tables, with any scaling type.
"""

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import ENDS, Arch, OwnKeys, Stated
from converters.to_gguf.archs._latent import (
    ELSEWHERE,
    KEY,
    LATENT,
    QUERY_RANK,
    ROTARY,
    VALUE,
    latent,
    other_epsilon,
    other_pairs,
    query_rank,
    whole_sizes,
)
from converters.to_gguf.file.keys import KeyValue, uint32
from converters.to_gguf.rope.loader import LONG, SHORT, Loader, with_every_type
from converters.to_gguf.rope.settings import KEY_HEADS
from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.mla import LatentAttention
from ropeconv.arch.blocks.mlp import GatedMlp
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role
from ropeconv.model import Model

# constants of its graph, by the names of sizes and of the config's keys
FIXED = {
    "embedding_scale": ("scale_emb", 12),
    "depth_scale": ("scale_depth", 1.4),
    "base_dim": ("dim_model_base", 256),
}


def _write(model: Model) -> list[KeyValue]:
    block = latent(model)
    return [
        uint32(KEY_HEADS, block.num_kv_heads),
        uint32(KEY, block.head_dim),
        uint32(VALUE, block.value_dim),
        uint32(LATENT, block.latent_dim),
        uint32(QUERY_RANK, query_rank(block.query)),
    ]


def _read(stated: Stated) -> Mapping[str, Any]:
    found = whole_sizes(stated, LATENT, QUERY_RANK, KEY, VALUE, ROTARY)
    rotary = found[ROTARY]
    return {
        "latent_dim": found[LATENT],
        "query_rank": found[QUERY_RANK],
        "still_dim": found[KEY] - rotary,
        "rotary_size": rotary,
        "value_dim": found[VALUE],
        "head_dim": rotary,
        "query_dim": found[KEY],
        **{size: value for size, (_, value) in FIXED.items()},
    }


def _obstacle(model: Model) -> str | None:
    for size, (key, value) in FIXED.items():
        found = getattr(model.sizes, size)
        if found != value:
            return (
                f"llama.cpp's minicpm3 has {key} {value} in its graph, and config.json says "
                f"{found}; {ELSEWHERE}"
            )
    if not query_rank(latent(model).query):
        return f"llama.cpp's minicpm3 does not load without a q_lora_rank; {ELSEWHERE}"
    return other_pairs(model, Pairing.HALVES) or other_epsilon(model)


ARCH = Arch(
    name="minicpm3",
    families=("minicpm3",),
    runs=ENDS | {PreNorm, LatentAttention, GatedMlp},
    names={Role.KV_B: "blk.{n}.attn_kv_b"},
    biases=frozenset(),
    traits=frozenset({Trait.EMBEDDING_SCALE, Trait.RESIDUAL_SCALE, Trait.LOGIT_SCALE}),
    loader=Loader(with_every_type(LONG, SHORT), whole_head=False),
    keys=(OwnKeys(_write, _read, plain=lambda _: False),),
    obstacle=_obstacle,
)
