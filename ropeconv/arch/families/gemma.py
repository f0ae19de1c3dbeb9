"""Gemma 1: norms that multiply by 1 + weight, a gated GELU MLP, scaled embeddings."""

from dataclasses import replace

from ropeconv.arch.blocks.embedding import embedding
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, fixed, switch
from ropeconv.arch.blocks.norm import rms_norm
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import (
    gated,
    pre_norms,
    self_attention,
    with_defaults,
)
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="gemma",
    classes=("GemmaForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-6, num_kv_heads=16, head_dim=256, tied=True),
        "activation": Key(
            ("hidden_act",), "gelu_pytorch_tanh", covers=("gelu_pytorch_tanh", "gelu")
        ),
        "hidden_activation": fixed("hidden_activation", "gelu_pytorch_tanh", "gelu", None),
        "attention_bias": switch("attention_bias", default=False),
        "bidirectional": fixed("use_bidirectional_attention", None, False),
    },
    embedding=lambda s: embedding(s, scale=s.hidden_size**0.5),
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s, offset=1.0),
        self_attention(s, bias=s.attention_bias, output_bias=s.attention_bias),
        # the class takes "gelu" of old configs for the tanh form
        replace(gated(s), activation="gelu_pytorch_tanh"),
    ),
    head=lambda s: head(s, norm=rms_norm(Role.OUTPUT_NORM, "model.norm", s, offset=1.0)),
    source="transformers models/gemma/modeling_gemma.py",
)
