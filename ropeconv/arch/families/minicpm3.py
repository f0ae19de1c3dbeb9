"""MiniCPM3: latent attention with halves as rotary pairs, and multipliers."""

import math
from dataclasses import replace
from typing import Any

from ropeconv.arch.blocks.embedding import embedding
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, Sizes, fixed, number, optional
from ropeconv.arch.families._latent import KEYS, latent_attention
from ropeconv.arch.families._standard import gated, pre_norms, with_defaults
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer


def _number_or_none(value: Any) -> str | None:
    return None if value is None else number(value)


def _even_values(s: Sizes) -> int:
    return int(s.hidden_size // s.num_heads)


def _depth(s: Sizes) -> float:
    """What is added to the residual stream is multiplied by it; null: by 1."""
    return 1.0 if s.depth_scale is None else float(s.depth_scale / math.sqrt(s.num_layers))


ARCH = Architecture(
    name="minicpm3",
    classes=("MiniCPM3ForCausalLM",),
    keys={
        **with_defaults(
            KEYS, norm_eps=1e-5, latent_dim=256, query_rank=768, still_dim=64, rotary_size=32
        ),
        "tied": replace(KEYS["tied"], default=True),
        "value_dim": Key(("v_head_dim",), derived=_even_values, check=KEYS["value_dim"].check),
        "embedding_scale": Key(("scale_emb",), 12, check=number),
        "depth_scale": Key(("scale_depth",), 1.4, check=_number_or_none),
        "base_dim": Key(("dim_model_base",), 256, check=optional),
        "mlp_bias": fixed("mlp_bias", False),
    },
    embedding=lambda s: embedding(s, scale=float(s.embedding_scale)),
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s, scale=_depth(s)),
        latent_attention(s, interleaved=False),
        gated(s),
    ),
    head=lambda s: head(s, scale=float((s.base_dim or s.hidden_size) / s.hidden_size)),
    rope=RopeSpelling(runs_in_4=()),
    source="transformers models/minicpm3/modeling_minicpm3.py",
)
