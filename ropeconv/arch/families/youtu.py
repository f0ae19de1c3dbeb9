"""Youtu-LLM: latent attention, and the Llama block's MLP."""

from dataclasses import replace

from ropeconv.arch.blocks.keys import Key
from ropeconv.arch.families._latent import INTERLEAVED, KEYS, latent_attention
from ropeconv.arch.families._standard import gated, pre_norms
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="youtu",
    classes=("YoutuForCausalLM",),
    keys={
        **KEYS,
        "tied": replace(KEYS["tied"], default=True),
        "interleaved": INTERLEAVED,
        "dense": Key((), derived=lambda _: True),
    },
    layer=lambda s, kind, _: Layer(
        kind, pre_norms(s), latent_attention(s, interleaved=s.interleaved), gated(s)
    ),
    rope=RopeSpelling(runs_in_4=()),
    ignores=frozenset({"embedding_initializer_range"}),
    source="transformers models/youtu/modeling_youtu.py",
)
