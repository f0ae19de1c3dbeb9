"""Granite 3 mixtures with an expert that every token takes."""

from ropeconv.arch.blocks.embedding import embedding
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, count
from ropeconv.arch.families._standard import pre_norms
from ropeconv.arch.families.granite import granite_attention
from ropeconv.arch.families.granitemoe import IGNORES, KEYS, mixture
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="granitemoeshared",
    classes=("GraniteMoeSharedForCausalLM",),
    keys={**KEYS, "shared_width": Key(("shared_intermediate_size",), 0, check=count)},
    embedding=lambda s: embedding(s, scale=float(s.embedding_multiplier)),
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s, scale=float(s.residual_multiplier)),
        granite_attention(s),
        mixture(s, shared_width=s.shared_width),
    ),
    head=lambda s: head(s, scale=1.0 / s.logits_scaling),
    ignores=IGNORES,
    source="transformers models/granitemoeshared/modeling_granitemoeshared.py",
)
