"""Granite with windows in three of four layers, and an attention sink for every head."""

from dataclasses import replace

from ropeconv.arch import layers
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.embedding import embedding
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, Sizes, switch
from ropeconv.arch.blocks.weight import Role, Weight
from ropeconv.arch.families._standard import LAYER, gated, pre_norms, window, with_defaults
from ropeconv.arch.families.granite import MULTIPLIERS, granite_attention
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer


def sink_attention(s: Sizes, kind: str) -> Attention:
    """Granite's attention with a sink for every head."""
    block = granite_attention(s, window=window(s, kind))
    sinks = Weight(Role.SINKS, f"{LAYER}.self_attn.sinks", (s.num_heads,))
    return replace(block, sinks=sinks)


ARCH = Architecture(
    name="granite_swa",
    classes=("GraniteSWAForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-5, num_kv_heads=4, tied=True, activation="silu"),
        **MULTIPLIERS,
        "sliding_window": Key(("sliding_window",), 128),
        "attention_bias": switch("attention_bias", default=False),
        "mlp_bias": switch("mlp_bias", default=False),
    },
    embedding=lambda s: embedding(s, scale=float(s.embedding_multiplier)),
    layers=layers.WINDOWS_OF_ONE_THETA,
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s, scale=float(s.residual_multiplier)),
        sink_attention(s, kind),
        gated(s, bias=s.mlp_bias),
    ),
    head=lambda s: head(s, scale=1.0 / s.logits_scaling),
    rope=RopeSpelling(runs_in_4=()),
    source="transformers models/granite_swa/modeling_granite_swa.py",
)
