"""ERNIE 4.5, dense: the Llama block with neighbours as rotary pairs, one switch for every bias."""

from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.keys import switch
from ropeconv.arch.families._standard import gated, pre_norms, self_attention, with_defaults
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.layers import FULL
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="ernie4_5",
    classes=("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"),
    keys={
        **with_defaults(norm_eps=1e-5, num_kv_heads=2, head_dim=128, tied=True, activation="silu"),
        "use_bias": switch("use_bias", default=False),
    },
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s),
        self_attention(s, bias=s.use_bias, output_bias=s.use_bias, pairing=Pairing.ADJACENT),
        gated(s, bias=s.use_bias),
    ),
    rope=RopeSpelling(default_theta={FULL: 500_000.0}),
    source="transformers models/ernie4_5/modeling_ernie4_5.py",
)
