"""Mistral: the Llama block, with a sliding window on every layer when the config sets one."""

from ropeconv.arch import layers
from ropeconv.arch.blocks.keys import Key, whole
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
    name="mistral",
    classes=("MistralForCausalLM",),
    keys={
        **KEYS,
        "num_kv_heads": Key(("num_key_value_heads",), check=whole),
        "sliding_window": Key(("sliding_window",)),
    },
    layers=layers.WINDOW_EVERYWHERE,
    layer=lambda s, kind, _: Layer(
        kind, pre_norms(s), self_attention(s, window=window(s, kind)), gated(s)
    ),
    source="transformers models/mistral/modeling_mistral.py",
)
