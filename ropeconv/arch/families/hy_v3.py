"""Hy 3: norms on each head's q and k, sigmoid-routed experts and one that every token takes."""

from collections.abc import Mapping
from typing import Any

from ropeconv.arch.blocks import moe
from ropeconv.arch.blocks.keys import ANY, Key, Sizes, crowd, fixed, number, switch, whole
from ropeconv.arch.families._standard import (
    LAYER,
    gated,
    pre_norms,
    self_attention,
    with_defaults,
    with_head_norms,
)
from ropeconv.arch.families.mixtral import MTP, TRAINING
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.layers import FULL
from ropeconv.arch.stack import FeedForward, Layer
from ropeconv.errors import ConfigError

DENSE, SPARSE = "dense", "sparse"


def _kinds(value: Any) -> str | None:
    good = value is None or (isinstance(value, list) and set(value) <= {DENSE, SPARSE})
    return None if good else f"must be a list of {DENSE!r} and {SPARSE!r}, not {value!r}"


MLP_KINDS = Key(("mlp_layer_types",), None, check=_kinds, form=True)


def mlp_kind(s: Sizes, number: int, unstated: str) -> str:
    """Of one layer; unstated: where the config has no list of them."""
    if s.mlp_kinds is None:
        return unstated
    if len(s.mlp_kinds) != s.num_layers:
        raise ConfigError(
            f"config.json: mlp_layer_types names {len(s.mlp_kinds)} layers of {s.num_layers}; mend "
            f"the config"
        )
    return str(s.mlp_kinds[number])


def _feed_forward(s: Sizes, number: int) -> FeedForward:
    if mlp_kind(s, number, SPARSE if number else DENSE) == DENSE:
        return gated(s, bias=s.mlp_bias)
    name = f"{LAYER}.mlp"
    return moe.mixture_of_experts(
        s,
        name,
        routing=moe.Routing(
            s.experts_per_token,
            normed=True,
            scores=moe.Scores.SIGMOID,
            bias=moe.router_bias(s, f"{name}.expert_bias"),
            scale=float(s.routed_scale),
        ),
        router="router.gate",
        shared=moe.shared_expert(
            s, f"{name}.shared_mlp", s.expert_size * s.num_shared, bias=s.mlp_bias
        ),
    )


KEYS: Mapping[str, Key] = {
    **with_defaults(norm_eps=1e-5, num_kv_heads=8, head_dim=128, activation="silu"),
    "num_experts": Key(("num_experts", "num_local_experts"), 192, check=crowd),
    "experts_per_token": Key(("num_experts_per_tok",), 8, check=whole),
    "expert_size": Key(("moe_intermediate_size",), 1536, check=whole),
    "num_shared": Key(("num_shared_experts",), 1, check=whole),
    "routed_scale": Key(("router_scaling_factor",), 2.826, check=number),
    "mlp_kinds": MLP_KINDS,
    "attention_bias": switch("attention_bias", default=False),
    "mlp_bias": switch("mlp_bias", default=False),
    # of arithmetic in less than float32
    "combine": fixed("enable_moe_fp32_combine", True, ANY),
}

ARCH = Architecture(
    name="hy_v3",
    classes=("HYV3ForCausalLM",),
    keys=KEYS,
    layer=lambda s, kind, number: Layer(
        kind,
        pre_norms(s),
        with_head_norms(self_attention(s, bias=s.attention_bias, output_bias=s.attention_bias), s),
        _feed_forward(s, number),
    ),
    rope=RopeSpelling(default_theta={FULL: 11_158_840.0}, runs_in_4=()),
    ignores=TRAINING | MTP,
    source="transformers models/hy_v3/modeling_hy_v3.py",
)
