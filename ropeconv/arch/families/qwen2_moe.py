"""Qwen1.5 and Qwen2 mixtures: Qwen2's attention, experts, and one with a gate that every token
takes.
"""

from ropeconv.arch import layers
from ropeconv.arch.blocks import moe
from ropeconv.arch.blocks.keys import Key, Sizes, crowd, switch, whole
from ropeconv.arch.families._standard import LAYER, gated, pre_norms, self_attention, window
from ropeconv.arch.families.mixtral import TRAINING
from ropeconv.arch.families.qwen2 import ARCH as DENSE
from ropeconv.arch.families.qwen3_moe import SPARSE_KEYS, is_dense
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import FeedForward, Layer


def _feed_forward(s: Sizes, number: int) -> FeedForward:
    if is_dense(s, number):
        return gated(s)
    name = f"{LAYER}.mlp"
    return moe.mixture_of_experts(
        s,
        name,
        routing=moe.Routing(s.experts_per_token, s.normed_weights),
        shared=moe.shared_expert(
            s, f"{name}.shared_expert", s.shared_size, gate=f"{name}.shared_expert_gate"
        ),
    )


ARCH = Architecture(
    name="qwen2_moe",
    classes=("Qwen2MoeForCausalLM",),
    keys={
        **DENSE.keys,
        **SPARSE_KEYS,
        "num_kv_heads": Key(("num_key_value_heads",), 16, check=whole),
        "num_experts": Key(("num_experts", "num_local_experts"), 60, check=crowd),
        "experts_per_token": Key(("num_experts_per_tok",), 4, check=whole),
        "expert_size": Key(("moe_intermediate_size",), 1408, check=whole),
        "shared_size": Key(("shared_expert_intermediate_size",), 5632, check=whole),
        "qkv_bias": switch("qkv_bias", default=True),
    },
    layers=layers.WINDOW_FROM_LAYER,
    layer=lambda s, kind, number: Layer(
        kind,
        pre_norms(s),
        self_attention(s, bias=s.qkv_bias, window=window(s, kind)),
        _feed_forward(s, number),
    ),
    ignores=TRAINING,
    source="transformers models/qwen2_moe/modeling_qwen2_moe.py",
)
