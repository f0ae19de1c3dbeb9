"""Gemma 3 text: norms (1 + weight) around both blocks, q/k norms, GELU MLP, sliding layers with their own theta."""

from ropeconv.arch._base import (
    LAYER,
    STANDARD_DIMS,
    Architecture,
    Key,
    Role,
    Tag,
    Weight,
    attention,
    gated_mlp,
    norm,
)

SHIFTED = (Tag.NORM_PLUS_ONE,)

ARCH = Architecture(
    name="gemma3_text",
    classes=("Gemma3ForCausalLM",),
    weights=(
        Weight(Role.TOKEN_EMBEDDING, "model.embed_tokens.weight", ("v", "e")),
        *norm(Role.OUTPUT_NORM, "model.norm", tags=SHIFTED),
        Weight(Role.OUTPUT, "lm_head.weight", ("v", "e")),
        *norm(Role.ATTN_NORM, f"{LAYER}.input_layernorm", tags=SHIFTED),
        *norm(Role.ATTN_POST_NORM, f"{LAYER}.post_attention_layernorm", tags=SHIFTED),
        *attention(bias="attention_bias", output_bias="attention_bias"),
        *norm(Role.Q_NORM, f"{LAYER}.self_attn.q_norm", "d", tags=SHIFTED),
        *norm(Role.K_NORM, f"{LAYER}.self_attn.k_norm", "d", tags=SHIFTED),
        *norm(Role.FFN_NORM, f"{LAYER}.pre_feedforward_layernorm", tags=SHIFTED),
        *norm(Role.FFN_POST_NORM, f"{LAYER}.post_feedforward_layernorm", tags=SHIFTED),
        *gated_mlp(),
    ),
    dims={
        **STANDARD_DIMS,
        "num_kv_heads": Key(("num_key_value_heads",), 4),
        "num_heads": Key(("num_attention_heads",), 8),
        "head_dim": Key(("head_dim",), 256),
        "norm_eps": Key(("rms_norm_eps",), 1e-6),
        "vocab_size": Key(("vocab_size",), 262208),
        "activation": Key(("hidden_activation", "hidden_act"), "gelu_pytorch_tanh"),
        "tied": Key(("tie_word_embeddings",), default=True),
        "sliding_window": Key(("sliding_window",), 4096),
        "query_scale_dim": Key(("query_pre_attn_scalar",), 256),
        "final_logit_softcap": Key(("final_logit_softcapping",), None),
    },
    expects={
        "hidden_activation": ("gelu_pytorch_tanh", "gelu"),
        "attention_bias": (False, True),
        "attn_logit_softcapping": (None,),
        "use_bidirectional_attention": (False, None),
    },
    layers="pattern",
    default_theta={"full_attention": 1_000_000.0, "sliding_attention": 10_000.0},
    nested_rope=True,
    residual="sandwich",
    embedding_scale="sqrt_hidden_size",
    source="transformers models/gemma3/modeling_gemma3.py",
)
