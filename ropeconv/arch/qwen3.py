"""Qwen3: the Llama block with an RMS norm on each head's q and k before the rotation."""

from ropeconv.arch._base import (
    LAYER,
    STANDARD_DIMS,
    Architecture,
    Key,
    Role,
    attention,
    embeddings,
    gated_mlp,
    norm,
    pre_norms,
)

ARCH = Architecture(
    name="qwen3",
    classes=("Qwen3ForCausalLM",),
    weights=(
        *embeddings(),
        *pre_norms(),
        *attention(bias="attention_bias", output_bias="attention_bias"),
        *norm(Role.Q_NORM, f"{LAYER}.self_attn.q_norm", "d"),
        *norm(Role.K_NORM, f"{LAYER}.self_attn.k_norm", "d"),
        *gated_mlp(),
    ),
    dims={**STANDARD_DIMS, "head_dim": Key(("head_dim",), 128), "sliding_window": Key(("sliding_window",), 4096)},
    expects={"hidden_act": ("silu", "swish"), "attention_bias": (False, True)},
    layers="window_from_max_window_layers",
    source="transformers models/qwen3/modeling_qwen3.py",
)
