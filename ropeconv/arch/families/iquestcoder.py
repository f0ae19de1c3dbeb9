"""IQuest-Coder: the Llama block under a config class of its own."""

from ropeconv.arch.blocks.keys import fixed, switch
from ropeconv.arch.families._standard import gated, pre_norms, self_attention, with_defaults
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="iquestcoder",
    classes=("IQuestCoderForCausalLM", "LlamaForCausalLM"),
    keys={
        **with_defaults(norm_eps=1e-5, num_kv_heads=8, head_dim=128, activation="silu"),
        "attention_bias": switch("attention_bias", default=False),
        "mlp_bias": switch("mlp_bias", default=False),
        "clip_qkv": fixed("clip_qkv", None),
        "use_sliding_window": fixed("use_sliding_window", False),
    },
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s),
        self_attention(s, bias=s.attention_bias, output_bias=s.attention_bias),
        gated(s, bias=s.mlp_bias),
    ),
    rope=RopeSpelling(runs_in_4=()),
    source="transformers models/iquestcoder/configuration_iquestcoder.py, models/llama",
)
