"""Phi-3, Phi-3.5, Phi-4, Phi-4-mini: fused projections, partial rotary, LongRoPE."""

from ropeconv.arch import layers
from ropeconv.arch.blocks import attention as attn
from ropeconv.arch.blocks.keys import ANY, Key, even_share, fixed, whole
from ropeconv.arch.blocks.mlp import fused_gated_mlp
from ropeconv.arch.families._standard import KEYS, LAYER, pre_norms, window
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer

ATTENTION = f"{LAYER}.self_attn"

ARCH = Architecture(
    name="phi3",
    classes=("Phi3ForCausalLM",),
    keys={
        **KEYS,
        "head_dim": Key((), derived=even_share, check=whole),
        "sliding_window": Key(("sliding_window",), None),
        "attention_bias": fixed("attention_bias", False),
        "resid_pdrop": fixed("resid_pdrop", 0.0, ANY),
        "embd_pdrop": fixed("embd_pdrop", 0.0, ANY),
        # of the class that its makers published, at the values that every layer of this one has
        "full_attn_mod": fixed("full_attn_mod", 1),
        "interpolate_factor": fixed("interpolate_factor", 1),
    },
    layers=layers.WINDOW_EVERYWHERE,
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s),
        attn.attention(
            s,
            attn.fused(s, f"{ATTENTION}.qkv_proj", attn.Order.STACKED),
            attn.output(s, f"{ATTENTION}.o_proj"),
            window=window(s, kind),
        ),
        fused_gated_mlp(s, f"{LAYER}.mlp"),
    ),
    rope=RopeSpelling(
        takes_partial=True,
        rope_types=("default", "longrope"),
        drops_cache=True,
        transformers_4={"longrope": ("short_factor", "long_factor")},
    ),
    source="transformers models/phi3/modeling_phi3.py",
)
