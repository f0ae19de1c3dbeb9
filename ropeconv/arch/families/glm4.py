"""GLM-4-0414: GLM with norms around both blocks."""

from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.keys import switch
from ropeconv.arch.blocks.mlp import fused_gated_mlp
from ropeconv.arch.blocks.norm import rms_norm
from ropeconv.arch.blocks.residual import Sandwich
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import LAYER, self_attention, with_defaults
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="glm4",
    classes=("Glm4ForCausalLM",),
    keys={
        **with_defaults(norm_eps=1.5625e-7, num_kv_heads=2, head_dim=128, activation="silu"),
        "attention_bias": switch("attention_bias", default=True),
    },
    layer=lambda s, kind, _: Layer(
        kind,
        Sandwich(
            rms_norm(Role.ATTN_NORM, f"{LAYER}.input_layernorm", s),
            rms_norm(Role.ATTN_POST_NORM, f"{LAYER}.post_self_attn_layernorm", s),
            rms_norm(Role.FFN_NORM, f"{LAYER}.post_attention_layernorm", s),
            rms_norm(Role.FFN_POST_NORM, f"{LAYER}.post_mlp_layernorm", s),
        ),
        self_attention(s, bias=s.attention_bias, pairing=Pairing.ADJACENT),
        fused_gated_mlp(s, f"{LAYER}.mlp"),
    ),
    rope=RopeSpelling(default_partial=0.5, takes_partial=True),
    source="transformers models/glm4/modeling_glm4.py",
)
