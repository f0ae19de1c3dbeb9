"""Granite 3: the Llama block with four multipliers."""

from dataclasses import replace

from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.embedding import embedding
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, Sizes, number, switch
from ropeconv.arch.families._standard import gated, pre_norms, self_attention, with_defaults
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer

MULTIPLIERS = {
    "embedding_multiplier": Key(("embedding_multiplier",), 1.0, check=number),
    "residual_multiplier": Key(("residual_multiplier",), 1.0, check=number),
    "attention_multiplier": Key(("attention_multiplier",), 1.0, check=number),
    "logits_scaling": Key(("logits_scaling",), 1.0, check=number),
}


def granite_attention(s: Sizes, *, window: int | None = None) -> Attention:
    """Attention whose scores are multiplied by attention_multiplier alone."""
    block = self_attention(s, bias=s.attention_bias, output_bias=s.attention_bias, window=window)
    return replace(block, scale=float(s.attention_multiplier))


ARCH = Architecture(
    name="granite",
    classes=("GraniteForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-6, activation="silu"),
        **MULTIPLIERS,
        "attention_bias": switch("attention_bias", default=False),
        "mlp_bias": switch("mlp_bias", default=False),
    },
    embedding=lambda s: embedding(s, scale=float(s.embedding_multiplier)),
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s, scale=float(s.residual_multiplier)),
        granite_attention(s),
        gated(s, bias=s.mlp_bias),
    ),
    head=lambda s: head(s, scale=1.0 / s.logits_scaling),
    source="transformers models/granite/modeling_granite.py",
)
