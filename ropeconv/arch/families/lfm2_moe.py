"""LFM2 mixtures of experts: sigmoid-routed experts in all but the first layers."""

from dataclasses import replace

from ropeconv.arch.blocks import moe
from ropeconv.arch.blocks.keys import Key, Sizes, count, crowd, number, switch, whole
from ropeconv.arch.families.lfm2 import (
    COMMON,
    FEED,
    LAYERS,
    ROPE,
    UNREAD,
    feed_forward,
    mixer,
    output,
    residual,
)
from ropeconv.arch.families.mixtral import TRAINING
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import FeedForward, Layer


def _feed_forward(s: Sizes, layer: int) -> FeedForward:
    if layer < s.dense_layers:
        return feed_forward(s)
    return moe.mixture_of_experts(
        s,
        FEED,
        routing=moe.Routing(
            s.experts_per_token,
            s.normed_weights,
            moe.Scores.SIGMOID,
            moe.router_bias(s, f"{FEED}.expert_bias") if s.router_bias else None,
            float(s.routed_scale),
        ),
        projections=("w1", "w3", "w2"),
    )


ARCH = Architecture(
    name="lfm2_moe",
    classes=("Lfm2MoeForCausalLM",),
    keys={
        **COMMON,
        "intermediate_size": Key(("intermediate_size",), 7168, check=whole),
        "num_experts": Key(("num_experts", "num_local_experts"), 32, check=crowd),
        "experts_per_token": Key(("num_experts_per_tok",), 4, check=whole),
        "expert_size": Key(("moe_intermediate_size",), 1792, check=whole),
        "dense_layers": Key(("num_dense_layers",), 2, check=count),
        "normed_weights": switch("norm_topk_prob", default=True),
        "routed_scale": Key(("routed_scaling_factor",), 1.0, check=number),
        "router_bias": switch("use_expert_bias", default=True),
    },
    layers=replace(LAYERS, reads=frozenset(), stated=True),
    layer=lambda s, kind, layer: Layer(kind, residual(s), mixer(s, kind), _feed_forward(s, layer)),
    head=output,
    rope=replace(ROPE, runs_in_4=()),
    ignores=UNREAD | TRAINING,
    source="transformers models/lfm2_moe/modeling_lfm2_moe.py",
)
