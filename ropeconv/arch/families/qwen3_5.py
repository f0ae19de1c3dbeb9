"""Qwen3.5 text: three of four layers are gated delta nets."""

from dataclasses import replace

from ropeconv.arch.families._qwen_hybrid import (
    KEYS,
    LAYERS,
    ROPE,
    UNREAD,
    kv_heads,
    mixer,
    output,
)
from ropeconv.arch.families._standard import gated, pre_norms
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="qwen3_5_text",
    classes=("Qwen3_5ForCausalLM",),
    keys={**KEYS, "num_kv_heads": kv_heads(4)},
    layers=LAYERS,
    layer=lambda s, kind, _: Layer(kind, pre_norms(s, offset=1.0), mixer(s, kind), gated(s)),
    head=output,
    rope=replace(ROPE, runs_in_4=()),
    ignores=UNREAD | {"mlp_only_layers"},
    source="transformers models/qwen3_5/modeling_qwen3_5.py",
)
