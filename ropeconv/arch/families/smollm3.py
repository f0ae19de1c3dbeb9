"""SmolLM3: the Llama block, with layers that do not rotate."""

from ropeconv.arch import layers
from ropeconv.arch.blocks.keys import Key, switch
from ropeconv.arch.families._standard import gated, pre_norms, self_attention, with_defaults
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="smollm3",
    classes=("SmolLM3ForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-6, num_kv_heads=4, tied=True, activation="silu"),
        "sliding_window": Key(("sliding_window",), None),
        "attention_bias": switch("attention_bias", default=False),
        "mlp_bias": switch("mlp_bias", default=False),
    },
    layers=layers.ROPE_BY_LAYER,
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s),
        self_attention(s, bias=s.attention_bias, output_bias=s.attention_bias),
        gated(s, bias=s.mlp_bias),
    ),
    rope=RopeSpelling(default_theta={layers.FULL: 2_000_000.0}),
    ignores=frozenset({"max_window_layers"}),
    source="transformers models/smollm3/modeling_smollm3.py",
)
