"""Mistral: the Llama block, with a sliding window on every layer when the config sets one."""

from ropeconv.arch._base import STANDARD_DIMS, Architecture, Key, attention, embeddings, gated_mlp, pre_norms

ARCH = Architecture(
    name="mistral",
    classes=("MistralForCausalLM",),
    weights=(*embeddings(), *pre_norms(), *attention(), *gated_mlp()),
    dims={**STANDARD_DIMS, "num_kv_heads": Key(("num_key_value_heads",)), "sliding_window": Key(("sliding_window",))},
    expects={"hidden_act": ("silu", "swish")},
    layers="window_everywhere",
    drops=("model.layers.{n}.self_attn.rotary_emb.inv_freq",),
    source="transformers models/mistral/modeling_mistral.py",
)
