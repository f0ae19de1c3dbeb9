"""Helium: the Llama block with neighbours as rotary pairs."""

from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.keys import switch
from ropeconv.arch.families._standard import gated, pre_norms, self_attention, with_defaults
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.layers import FULL
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="helium",
    classes=("HeliumForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-8, num_kv_heads=20, head_dim=128, activation="silu"),
        "attention_bias": switch("attention_bias", default=False),
        "mlp_bias": switch("mlp_bias", default=False),
    },
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s),
        self_attention(s, bias=s.attention_bias, pairing=Pairing.ADJACENT),
        gated(s, bias=s.mlp_bias),
    ),
    rope=RopeSpelling(default_theta={FULL: 100_000.0}),
    source="transformers models/helium/modeling_helium.py",
)
