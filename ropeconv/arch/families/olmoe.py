"""OLMoE: norms over the whole of q and of k, and softmax-routed experts in every layer."""

from ropeconv.arch.blocks import moe
from ropeconv.arch.blocks.keys import Key, crowd, fixed, switch, whole
from ropeconv.arch.families._standard import (
    LAYER,
    pre_norms,
    self_attention,
    with_defaults,
    with_head_norms,
)
from ropeconv.arch.families.mixtral import TRAINING
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="olmoe",
    classes=("OlmoeForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-5, activation="silu"),
        "num_experts": Key(("num_experts", "num_local_experts"), 64, check=crowd),
        "experts_per_token": Key(("num_experts_per_tok",), 8, check=whole),
        "expert_size": Key((), derived=lambda s: s.intermediate_size, check=whole),
        "normed_weights": switch("norm_topk_prob", default=False),
        "attention_bias": switch("attention_bias", default=False),
        # its class clamps behind the norms, which no target has a place for
        "clip_qkv": fixed("clip_qkv", None),
    },
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s),
        with_head_norms(
            self_attention(s, bias=s.attention_bias, output_bias=s.attention_bias), s, whole=True
        ),
        moe.mixture_of_experts(
            s, f"{LAYER}.mlp", routing=moe.Routing(s.experts_per_token, s.normed_weights)
        ),
    ),
    ignores=TRAINING,
    source="transformers models/olmoe/modeling_olmoe.py",
)
