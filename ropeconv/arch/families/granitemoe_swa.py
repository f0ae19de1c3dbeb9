"""Granite mixtures with windows in three of four layers, and an attention sink for every head."""

from ropeconv.arch import layers
from ropeconv.arch.blocks.embedding import embedding
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, count
from ropeconv.arch.families._standard import pre_norms
from ropeconv.arch.families.granite_swa import sink_attention
from ropeconv.arch.families.granitemoe import IGNORES, KEYS, mixture
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="granitemoe_swa",
    classes=("GraniteMoeSWAForCausalLM",),
    keys={
        **KEYS,
        "sliding_window": Key(("sliding_window",), 128),
        "shared_width": Key(("shared_intermediate_size",), 0, check=count),
    },
    embedding=lambda s: embedding(s, scale=float(s.embedding_multiplier)),
    layers=layers.WINDOWS_OF_ONE_THETA,
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s, scale=float(s.residual_multiplier)),
        sink_attention(s, kind),
        mixture(
            s,
            shared_width=s.shared_width,
            names=("router", "experts.gate_up_proj", "experts.down_proj"),
        ),
    ),
    head=lambda s: head(s, scale=1.0 / s.logits_scaling),
    rope=RopeSpelling(runs_in_4=()),
    ignores=IGNORES,
    source="transformers models/granitemoe_swa/modeling_granitemoe_swa.py",
)
