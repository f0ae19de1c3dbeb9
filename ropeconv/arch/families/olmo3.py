"""OLMo 3: OLMo 2 with a window in three of four layers, which have a rope of their own."""

from ropeconv.arch import layers
from ropeconv.arch.blocks.keys import Key, switch
from ropeconv.arch.blocks.norm import rms_norm
from ropeconv.arch.blocks.residual import PostNorm
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import (
    KEYS,
    LAYER,
    gated,
    self_attention,
    window,
    with_defaults,
    with_head_norms,
)
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="olmo3",
    classes=("Olmo3ForCausalLM",),
    keys={
        **with_defaults(KEYS, norm_eps=1e-5, activation="silu"),
        "sliding_window": Key(("sliding_window",), 4096),
        "attention_bias": switch("attention_bias", default=False),
    },
    layers=layers.full_at(lambda n: (n + 1) % 4 == 0),
    layer=lambda s, kind, _: Layer(
        kind,
        PostNorm(
            rms_norm(Role.ATTN_POST_NORM, f"{LAYER}.post_attention_layernorm", s),
            rms_norm(Role.FFN_POST_NORM, f"{LAYER}.post_feedforward_layernorm", s),
        ),
        with_head_norms(
            self_attention(
                s, bias=s.attention_bias, output_bias=s.attention_bias, window=window(s, kind)
            ),
            s,
            whole=True,
        ),
        gated(s),
    ),
    rope=RopeSpelling(
        default_theta={layers.FULL: 500_000.0, layers.SLIDING: 500_000.0}, nested=True
    ),
    source="transformers models/olmo3/modeling_olmo3.py",
)
