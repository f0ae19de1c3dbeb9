"""OLMo 1: LayerNorms without tensors; q, k and v are clamped where the config says so."""

import math
from dataclasses import replace
from typing import Any

from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, Sizes, switch
from ropeconv.arch.blocks.norm import BareLayerNorm
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import gated, self_attention, with_defaults
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer

EPSILON = 1e-5  # fixed in the class


def _bound(value: Any) -> str | None:
    """What q, k and v are held within."""
    good = isinstance(value, float | int) and not isinstance(value, bool) and 0 < value < math.inf
    return None if value is None or good else f"must be a positive number or null, not {value!r}"


def _norm(role: Role, s: Sizes) -> BareLayerNorm:
    return BareLayerNorm(role, s.hidden_size, EPSILON)


ARCH = Architecture(
    name="olmo",
    classes=("OlmoForCausalLM",),
    keys={
        **with_defaults(activation="silu"),
        "norm_eps": Key((), EPSILON),
        "clip_qkv": Key(("clip_qkv",), None, check=_bound),
        "attention_bias": switch("attention_bias", default=False),
    },
    layer=lambda s, kind, _: Layer(
        kind,
        PreNorm(_norm(Role.ATTN_NORM, s), _norm(Role.FFN_NORM, s)),
        replace(
            self_attention(s, bias=s.attention_bias, output_bias=s.attention_bias),
            clamp=s.clip_qkv,
        ),
        gated(s),
    ),
    head=lambda s: head(s, norm=_norm(Role.OUTPUT_NORM, s)),
    rope=RopeSpelling(transformers_4={"linear": ("factor",), "dynamic": ("factor",)}),
    source="transformers models/olmo/modeling_olmo.py",
)
