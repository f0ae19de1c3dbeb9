"""Qwen3: the Llama block with an RMS norm on each head's q and k before the rotation."""

from ropeconv.arch import layers
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.keys import Key, Sizes, switch, whole
from ropeconv.arch.families._standard import (
    KEYS,
    gated,
    pre_norms,
    self_attention,
    window,
    with_head_norms,
)
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer

QWEN3_KEYS = {
    **KEYS,
    "attention_bias": switch("attention_bias", default=False),
    "sliding_window": Key(("sliding_window",), 4096),
}


def qwen3_attention(s: Sizes, kind: str) -> Attention:
    """Attention as Qwen3 and its mixtures have it."""
    bias = s.attention_bias
    block = self_attention(s, bias=bias, output_bias=bias, window=window(s, kind))
    return with_head_norms(block, s)


ARCH = Architecture(
    name="qwen3",
    classes=("Qwen3ForCausalLM",),
    keys={**QWEN3_KEYS, "head_dim": Key(("head_dim",), 128, check=whole)},
    layers=layers.WINDOW_FROM_LAYER,
    layer=lambda s, kind, _: Layer(kind, pre_norms(s), qwen3_attention(s, kind), gated(s)),
    source="transformers models/qwen3/modeling_qwen3.py",
)
