"""Solar Open: the Llama block with experts as DeepSeek-V3 routes them, in every layer."""

from ropeconv.arch.blocks.keys import Key, fixed, switch, whole
from ropeconv.arch.families._routed import ROUTED_KEYS, routed
from ropeconv.arch.families._standard import pre_norms, self_attention, with_defaults
from ropeconv.arch.families.mixtral import MTP, TRAINING
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.layers import FULL
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="solar_open",
    classes=("SolarOpenForCausalLM",),
    keys={
        **ROUTED_KEYS,
        **with_defaults(norm_eps=1e-5, num_kv_heads=8, head_dim=128, activation="silu"),
        "expert_size": Key(("moe_intermediate_size",), 1280, check=whole),
        # there is no dense layer, whose width it would be
        "intermediate_size": Key(("intermediate_size",), derived=lambda s: s.expert_size),
        "dense_layers": fixed("first_k_dense_replace", 0),
        "use_qk_norm": fixed("use_qk_norm", False),
        "attention_bias": switch("attention_bias", default=False),
    },
    layer=lambda s, kind, _: Layer(
        kind, pre_norms(s), self_attention(s, bias=s.attention_bias), routed(s)
    ),
    rope=RopeSpelling(default_theta={FULL: 1_000_000.0}, takes_partial=True, runs_in_4=()),
    ignores=TRAINING | MTP,
    source="transformers models/solar_open/modeling_solar_open.py",
)
