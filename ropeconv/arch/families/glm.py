"""GLM-4-9B: neighbours as rotary pairs in half of each head, gate and up in one matrix."""

from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.keys import switch
from ropeconv.arch.blocks.mlp import fused_gated_mlp
from ropeconv.arch.families._standard import LAYER, pre_norms, self_attention, with_defaults
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="glm",
    classes=("GlmForCausalLM",),
    keys={
        **with_defaults(norm_eps=1.5625e-7, num_kv_heads=2, head_dim=128, activation="silu"),
        "attention_bias": switch("attention_bias", default=True),
    },
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s),
        self_attention(s, bias=s.attention_bias, pairing=Pairing.ADJACENT),
        fused_gated_mlp(s, f"{LAYER}.mlp"),
    ),
    rope=RopeSpelling(default_partial=0.5, takes_partial=True),
    source="transformers models/glm/modeling_glm.py",
)
