"""Qwen2 and Qwen2.5: the Llama block with biases on q, k and v."""

from ropeconv.arch._base import STANDARD_DIMS, Architecture, Key, attention, embeddings, gated_mlp, pre_norms

ARCH = Architecture(
    name="qwen2",
    classes=("Qwen2ForCausalLM",),
    weights=(*embeddings(), *pre_norms(), *attention(bias="always"), *gated_mlp()),
    dims={**STANDARD_DIMS, "sliding_window": Key(("sliding_window",), 4096)},
    expects={"hidden_act": ("silu", "swish")},
    layers="window_from_max_window_layers",
    drops=("model.layers.{n}.self_attn.rotary_emb.inv_freq",),
    source="transformers models/qwen2/modeling_qwen2.py",
)
