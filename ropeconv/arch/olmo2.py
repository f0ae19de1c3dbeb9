"""OLMo 2: RMS norms after the blocks instead of before, and over the whole of q and of k."""

from ropeconv.arch._base import (
    LAYER,
    STANDARD_DIMS,
    Architecture,
    Role,
    attention,
    embeddings,
    gated_mlp,
    norm,
)

ARCH = Architecture(
    name="olmo2",
    classes=("Olmo2ForCausalLM",),
    weights=(
        *embeddings(),
        *attention(bias="attention_bias", output_bias="attention_bias"),
        *norm(Role.Q_NORM, f"{LAYER}.self_attn.q_norm", "h*d"),
        *norm(Role.K_NORM, f"{LAYER}.self_attn.k_norm", "k*d"),
        *norm(Role.ATTN_POST_NORM, f"{LAYER}.post_attention_layernorm"),
        *norm(Role.FFN_POST_NORM, f"{LAYER}.post_feedforward_layernorm"),
        *gated_mlp(),
    ),
    dims=STANDARD_DIMS,
    expects={"hidden_act": ("silu", "swish"), "attention_bias": (False, True)},
    residual="post",
    source="transformers models/olmo2/modeling_olmo2.py",
)
