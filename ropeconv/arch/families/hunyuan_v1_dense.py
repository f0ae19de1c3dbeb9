"""HunYuan, dense: the Llama block with norms on the heads of q and k, after the rotation."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.keys import Key, Sizes, fixed, number, switch, whole
from ropeconv.arch.blocks.norm import rms_norm
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import (
    LAYER,
    gated,
    pre_norms,
    self_attention,
    with_defaults,
)
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer


def hunyuan_attention(s: Sizes) -> Attention:
    """Attention as HunYuan and its mixtures have it."""
    name = f"{LAYER}.self_attn"
    return replace(
        self_attention(s, bias=s.attention_bias, output_bias=s.attention_bias),
        q_norm=rms_norm(Role.Q_NORM, f"{name}.query_layernorm", s, size=s.head_dim),
        k_norm=rms_norm(Role.K_NORM, f"{name}.key_layernorm", s, size=s.head_dim),
        norms_after_rotation=True,
    )


def _translate(stated: Mapping[str, Any], theta: float, size: int) -> Mapping[str, Any]:
    """`dynamic` with an `alpha` is a base that stays: theta * alpha ** (d / (d - 2))."""
    name = stated.get("rope_type", stated.get("type"))
    alpha = stated.get("alpha")
    if name != "dynamic" or not alpha or number(alpha):
        return stated
    base = stated.get("rope_theta", theta)
    return {"rope_type": "default", "rope_theta": base * alpha ** (size / (size - 2))}


ARCH = Architecture(
    name="hunyuan_v1_dense",
    classes=("HunYuanDenseV1ForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-5, activation="silu"),
        # transformers' class breaks without it
        "head_dim": Key(("head_dim",), check=whole),
        "attention_bias": switch("attention_bias", default=False),
        # said of what the class always does
        "qk_norm": fixed("use_qk_norm", True),
        "rotation": fixed("use_rotary_pos_emb", True),
        "rotation_in_three": fixed("position_embedding_xdrope", False),
        "norm_type": fixed("norm_type", "rms"),
    },
    layer=lambda s, kind, _: Layer(kind, pre_norms(s), hunyuan_attention(s), gated(s)),
    # transformers 4 breaks on a `dynamic` without an alpha
    rope=RopeSpelling(
        translate=_translate, runs_in_4=("default", "linear", "yarn", "longrope", "llama3")
    ),
    # of images, of classes, and of layers that share keys, which `use_cla` would switch on
    ignores=frozenset(
        {
            "attention_head_dim",
            "cla_share_factor",
            "class_num",
            "dense_list",
            "eod_token_id",
            "im_end_id",
            "im_newline_id",
            "im_start_id",
            "mask_init_id",
            "org_vocab_size",
            "pool_type",
            "text_end_id",
            "text_start_id",
        }
    ),
    source="transformers models/hunyuan_v1_dense/modeling_hunyuan_v1_dense.py",
)
