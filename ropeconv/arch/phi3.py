"""Phi-3, Phi-3.5, Phi-4, Phi-4-mini: fused qkv and gate/up projections, partial rotary, LongRoPE."""

from ropeconv.arch._base import (
    LAYER,
    STANDARD_DIMS,
    Architecture,
    Key,
    Role,
    Tag,
    embeddings,
    linear,
    pre_norms,
)

ARCH = Architecture(
    name="phi3",
    classes=("Phi3ForCausalLM",),
    weights=(
        *embeddings(),
        *pre_norms(),
        *linear(Role.QKV, f"{LAYER}.self_attn.qkv_proj", "h*d + 2*k*d", "e", tags=(Tag.ROPE_ROWS, Tag.QKV_STACKED)),
        *linear(Role.O, f"{LAYER}.self_attn.o_proj", "e", "h*d"),
        *linear(Role.GATE_UP, f"{LAYER}.mlp.gate_up_proj", "2*f", "e", tags=(Tag.GATE_UP_STACKED,)),
        *linear(Role.DOWN, f"{LAYER}.mlp.down_proj", "e", "f"),
    ),
    dims={**STANDARD_DIMS, "head_dim": Key((), "e/h"), "sliding_window": Key(("sliding_window",), None)},
    expects={
        "hidden_act": ("silu", "swish"),
        "attention_bias": (False,),
        "resid_pdrop": (0.0, "any"),
        "embd_pdrop": (0.0, "any"),
    },
    layers="window_everywhere",
    takes_partial=True,
    rope_types=("default", "longrope"),
    source="transformers models/phi3/modeling_phi3.py",
)
