"""EXAONE 4 without windows: norms after the blocks, and over each head of q and k.

With windows its full-attention layers do not rotate: see arch/uncovered.py.
"""

from ropeconv.arch import layers
from ropeconv.arch.blocks.keys import Key, only
from ropeconv.arch.blocks.norm import rms_norm
from ropeconv.arch.blocks.residual import PostNorm
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import (
    LAYER,
    gated,
    self_attention,
    with_defaults,
    with_head_norms,
)
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="exaone4",
    classes=("Exaone4ForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-5, num_kv_heads=32, activation="silu"),
        "sliding_window": Key(("sliding_window",), 4096, check=only(None)),
    },
    layers=layers.STATED_FULL,
    layer=lambda s, kind, _: Layer(
        kind,
        PostNorm(
            rms_norm(Role.ATTN_POST_NORM, f"{LAYER}.post_attention_layernorm", s),
            rms_norm(Role.FFN_POST_NORM, f"{LAYER}.post_feedforward_layernorm", s),
        ),
        with_head_norms(self_attention(s), s),
        gated(s),
    ),
    ignores=frozenset({"sliding_window_pattern"}),  # without a window it says nothing
    source="transformers models/exaone4/modeling_exaone4.py",
)
