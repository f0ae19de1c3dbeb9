"""Ministral 8B: the Llama block, each layer with a window or without as layer_types say."""

from ropeconv.arch import layers
from ropeconv.arch.blocks.keys import Key
from ropeconv.arch.families._standard import (
    gated,
    pre_norms,
    self_attention,
    window,
    with_defaults,
)
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="ministral",
    classes=("MinistralForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-6, num_kv_heads=8, activation="silu"),
        "sliding_window": Key(("sliding_window",), 4096),
    },
    layers=layers.WINDOW_UNLESS_STATED,
    layer=lambda s, kind, _: Layer(
        kind, pre_norms(s), self_attention(s, window=window(s, kind)), gated(s)
    ),
    source="transformers models/ministral/modeling_ministral.py",
)
