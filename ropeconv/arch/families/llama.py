"""Llama 1/2/3, SmolLM2, TinyLlama: norms before the blocks, grouped queries, gated SiLU MLP."""

from ropeconv.arch.blocks.keys import switch
from ropeconv.arch.families._standard import KEYS, gated, pre_norms, self_attention
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="llama",
    classes=("LlamaForCausalLM", "LLaMAForCausalLM"),
    keys={
        **KEYS,
        "attention_bias": switch("attention_bias", default=False),
        "mlp_bias": switch("mlp_bias", default=False),
    },
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s),
        self_attention(s, bias=s.attention_bias, output_bias=s.attention_bias),
        gated(s, bias=s.mlp_bias),
    ),
    source="transformers models/llama/modeling_llama.py",
)
