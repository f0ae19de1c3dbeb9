"""Mellum 2: Qwen3's attention with windows in some layers, softmax-routed experts."""

from ropeconv.arch import layers
from ropeconv.arch.blocks import moe
from ropeconv.arch.blocks.keys import Key, Sizes, crowd, switch, whole
from ropeconv.arch.families._standard import LAYER, gated, pre_norms
from ropeconv.arch.families.hy_v3 import DENSE, MLP_KINDS, SPARSE, mlp_kind
from ropeconv.arch.families.mixtral import MTP, TRAINING
from ropeconv.arch.families.qwen3 import QWEN3_KEYS, qwen3_attention
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import FeedForward, Layer


def _feed_forward(s: Sizes, number: int) -> FeedForward:
    if mlp_kind(s, number, SPARSE) == DENSE:
        return gated(s)
    routing = moe.Routing(s.experts_per_token, s.normed_weights)
    return moe.mixture_of_experts(s, f"{LAYER}.mlp", routing=routing)


ARCH = Architecture(
    name="mellum",
    classes=("MellumForCausalLM",),
    keys={
        **QWEN3_KEYS,
        "num_kv_heads": Key(("num_key_value_heads",), 4, check=whole),
        "head_dim": Key(("head_dim",), 128, check=whole),
        "sliding_window": Key(("sliding_window",), 1024),
        "num_experts": Key(("num_local_experts", "num_experts"), 64, check=crowd),
        "experts_per_token": Key(("num_experts_per_tok",), 8, check=whole),
        "expert_size": Key(("moe_intermediate_size",), 896, check=whole),
        "normed_weights": switch("norm_topk_prob", default=True),
        "mlp_kinds": MLP_KINDS,
    },
    layers=layers.full_at(lambda _: True),
    layer=lambda s, kind, number: Layer(
        kind, pre_norms(s), qwen3_attention(s, kind), _feed_forward(s, number)
    ),
    rope=RopeSpelling(
        default_theta={layers.FULL: 500_000.0, layers.SLIDING: 10_000.0},
        nested=True,
        runs_in_4=(),
    ),
    ignores=TRAINING | MTP | {"mtp_layer_types", "mtp_mlp_layer_types"},
    source="transformers models/mellum/modeling_mellum.py",
)
