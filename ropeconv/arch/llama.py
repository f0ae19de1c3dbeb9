"""Llama 1/2/3, SmolLM2, TinyLlama: RMS norms before the blocks, grouped-query attention, gated SiLU MLP."""

from ropeconv.arch._base import STANDARD_DIMS, Architecture, attention, embeddings, gated_mlp, pre_norms

ARCH = Architecture(
    name="llama",
    classes=("LlamaForCausalLM", "LLaMAForCausalLM"),
    weights=(
        *embeddings(),
        *pre_norms(),
        *attention(bias="attention_bias", output_bias="attention_bias"),
        *gated_mlp(bias="mlp_bias"),
    ),
    dims=STANDARD_DIMS,
    expects={"hidden_act": ("silu", "swish"), "attention_bias": (False, True), "mlp_bias": (False, True)},
    drops=("model.layers.{n}.self_attn.rotary_emb.inv_freq",),
    source="transformers models/llama/modeling_llama.py",
)
