"""OLMo 2: RMS norms after the blocks instead of before, and over the whole of q and of k."""

from ropeconv.arch.blocks.keys import switch
from ropeconv.arch.blocks.norm import rms_norm
from ropeconv.arch.blocks.residual import PostNorm
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import KEYS, LAYER, gated, self_attention, with_head_norms
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="olmo2",
    classes=("Olmo2ForCausalLM",),
    keys={**KEYS, "attention_bias": switch("attention_bias", default=False)},
    layer=lambda s, kind, _: Layer(
        kind,
        PostNorm(
            rms_norm(Role.ATTN_POST_NORM, f"{LAYER}.post_attention_layernorm", s),
            rms_norm(Role.FFN_POST_NORM, f"{LAYER}.post_feedforward_layernorm", s),
        ),
        with_head_norms(
            self_attention(s, bias=s.attention_bias, output_bias=s.attention_bias), s, whole=True
        ),
        gated(s),
    ),
    rope=RopeSpelling(transformers_4={"linear": ("factor",), "dynamic": ("factor",)}),
    source="transformers models/olmo2/modeling_olmo2.py",
)
