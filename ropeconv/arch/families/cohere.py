"""Command R: one LayerNorm without a bias feeds attention and MLP, which run side by side; logits
are scaled.
"""

from dataclasses import replace

from ropeconv.arch.blocks.attention import Attention, Pairing
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, Sizes, epsilon, number, switch
from ropeconv.arch.blocks.norm import layer_norm
from ropeconv.arch.blocks.residual import SharedParallel
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import (
    LAYER,
    gated,
    self_attention,
    with_defaults,
)
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.layers import FULL
from ropeconv.arch.stack import Layer


def _attention(s: Sizes) -> Attention:
    block = self_attention(
        s, bias=s.attention_bias, output_bias=s.attention_bias, pairing=Pairing.ADJACENT
    )
    if not s.use_qk_norm:
        return block
    norms = [
        layer_norm(role, f"{LAYER}.self_attn.{name}", s, shape=(heads, s.head_dim), bias=False)
        for role, name, heads in (
            (Role.Q_NORM, "q_norm", s.num_heads),
            (Role.K_NORM, "k_norm", s.num_kv_heads),
        )
    ]
    return replace(block, q_norm=norms[0], k_norm=norms[1])


ARCH = Architecture(
    name="cohere",
    classes=("CohereForCausalLM",),
    keys={
        **with_defaults(tied=True, activation="silu"),
        "norm_eps": Key(("layer_norm_eps",), 1e-5, check=epsilon),
        "logit_scale": Key(("logit_scale",), 0.0625, check=number),
        "use_qk_norm": switch("use_qk_norm", default=False),
        "attention_bias": switch("attention_bias", default=False),
    },
    layer=lambda s, kind, _: Layer(
        kind,
        SharedParallel(layer_norm(Role.ATTN_NORM, f"{LAYER}.input_layernorm", s, bias=False)),
        _attention(s),
        gated(s),
    ),
    head=lambda s: head(
        s,
        norm=layer_norm(Role.OUTPUT_NORM, "model.norm", s, bias=False),
        scale=float(s.logit_scale),
    ),
    rope=RopeSpelling(default_theta={FULL: 500_000.0}),
    source="transformers models/cohere/modeling_cohere.py",
)
