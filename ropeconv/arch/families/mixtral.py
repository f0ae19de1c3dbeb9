"""Mixtral: the Llama block with softmax-routed experts in every layer."""

from ropeconv.arch import layers
from ropeconv.arch.blocks import moe
from ropeconv.arch.blocks.keys import Key, crowd, whole
from ropeconv.arch.families._standard import (
    LAYER,
    pre_norms,
    self_attention,
    window,
    with_defaults,
)
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer

# of the loss that balances experts in training
TRAINING = frozenset({"output_router_logits", "router_aux_loss_coef", "router_jitter_noise"})
# how many layers predict more than the next token; their tensors are left out by name
MTP = frozenset({"num_nextn_predict_layers", "num_mtp_layers"})

ARCH = Architecture(
    name="mixtral",
    classes=("MixtralForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-5, num_kv_heads=8, activation="silu"),
        "sliding_window": Key(("sliding_window",), None),
        "num_experts": Key(("num_local_experts", "num_experts"), 8, check=crowd),
        "experts_per_token": Key(("num_experts_per_tok",), 2, check=whole),
        "expert_size": Key((), derived=lambda s: s.intermediate_size, check=whole),
    },
    layers=layers.WINDOW_EVERYWHERE,
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s),
        self_attention(s, window=window(s, kind)),
        moe.mixture_of_experts(
            s,
            f"{LAYER}.block_sparse_moe",
            routing=moe.Routing(s.experts_per_token, normed=True),
            projections=("w1", "w3", "w2"),
        ),
    ),
    rope=RopeSpelling(
        default_theta={layers.FULL: 1_000_000.0, layers.SLIDING: 1_000_000.0}, needs_head_dim=True
    ),
    ignores=TRAINING,
    source="transformers models/mixtral/modeling_mixtral.py",
)
