"""Qwen2 and Qwen2.5: the Llama block with biases on q, k and v."""

from ropeconv.arch import layers
from ropeconv.arch.blocks.keys import Key
from ropeconv.arch.families._standard import (
    KEYS,
    gated,
    pre_norms,
    self_attention,
    window,
)
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="qwen2",
    classes=("Qwen2ForCausalLM",),
    keys={**KEYS, "sliding_window": Key(("sliding_window",), 4096)},
    layers=layers.WINDOW_FROM_LAYER,
    layer=lambda s, kind, _: Layer(
        kind, pre_norms(s), self_attention(s, bias=True, window=window(s, kind)), gated(s)
    ),
    # of Qwen2.5-1M, read by vLLM alone: the doctor says so
    ignores=frozenset({"dual_chunk_attention_config"}),
    source="transformers models/qwen2/modeling_qwen2.py",
)
