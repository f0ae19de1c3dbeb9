"""GPT-NeoX and Pythia: LayerNorm with biases, q, k and v interleaved by head, partial rotary, parallel residual, GELU MLP."""

from ropeconv.arch._base import STANDARD_DIMS, Architecture, Key, Role, Tag, Weight, linear, norm

LAYER = "gpt_neox.layers.{n}"

ARCH = Architecture(
    name="gpt_neox",
    classes=("GPTNeoXForCausalLM",),
    weights=(
        Weight(Role.TOKEN_EMBEDDING, "gpt_neox.embed_in.weight", ("v", "e")),
        *norm(Role.OUTPUT_NORM, "gpt_neox.final_layer_norm", bias=True),
        Weight(Role.OUTPUT, "embed_out.weight", ("v", "e")),
        *norm(Role.ATTN_NORM, f"{LAYER}.input_layernorm", bias=True),
        *norm(Role.FFN_NORM, f"{LAYER}.post_attention_layernorm", bias=True),
        *linear(
            Role.QKV,
            f"{LAYER}.attention.query_key_value",
            "3*h*d",
            "e",
            bias="attention_bias",
            tags=(Tag.ROPE_ROWS, Tag.QKV_PER_HEAD),
        ),
        *linear(Role.O, f"{LAYER}.attention.dense", "e", "h*d", bias="attention_bias"),
        *linear(Role.UP, f"{LAYER}.mlp.dense_h_to_4h", "f", "e", bias="always"),
        *linear(Role.DOWN, f"{LAYER}.mlp.dense_4h_to_h", "e", "f", bias="always"),
    ),
    dims={
        **STANDARD_DIMS,
        "num_kv_heads": Key((), "=num_heads"),
        "head_dim": Key((), "e/h"),
        "norm_eps": Key(("layer_norm_eps",)),
        "parallel_residual": Key(("use_parallel_residual",), default=True),
    },
    expects={
        "hidden_act": ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"),
        "attention_bias": (True, False),
        "is_decoder": (False, True),
    },
    default_partial=0.25,
    takes_partial=True,
    norm="layer",
    ignores=frozenset({"classifier_dropout", "hidden_dropout"}),
    drops=(
        f"{LAYER}.attention.bias",
        f"{LAYER}.attention.masked_bias",
        f"{LAYER}.attention.rotary_emb.inv_freq",
    ),
    source="transformers models/gpt_neox/modeling_gpt_neox.py",
)
