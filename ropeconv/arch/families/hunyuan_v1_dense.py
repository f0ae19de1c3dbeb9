"""HunYuan, dense: the Llama block with norms on the heads of q and k, after the rotation."""

from dataclasses import replace

from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.keys import Key, Sizes, switch, whole
from ropeconv.arch.blocks.norm import rms_norm
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import (
    LAYER,
    gated,
    pre_norms,
    self_attention,
    with_defaults,
)
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer


def _attention(s: Sizes) -> Attention:
    name = f"{LAYER}.self_attn"
    return replace(
        self_attention(s, bias=s.attention_bias, output_bias=s.attention_bias),
        q_norm=rms_norm(Role.Q_NORM, f"{name}.query_layernorm", s, size=s.head_dim),
        k_norm=rms_norm(Role.K_NORM, f"{name}.key_layernorm", s, size=s.head_dim),
        norms_after_rotation=True,
    )


ARCH = Architecture(
    name="hunyuan_v1_dense",
    classes=("HunYuanDenseV1ForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-5, activation="silu"),
        # transformers' class breaks without it
        "head_dim": Key(("head_dim",), check=whole),
        "attention_bias": switch("attention_bias", default=False),
    },
    layer=lambda s, kind, _: Layer(kind, pre_norms(s), _attention(s), gated(s)),
    ignores=frozenset({"eod_token_id"}),
    source="transformers models/hunyuan_v1_dense/modeling_hunyuan_v1_dense.py",
)
