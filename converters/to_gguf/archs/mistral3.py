"""Ministral 3: queries that grow with their position; takes tables as llama does."""

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, MLP, QKV, Arch
from converters.to_gguf.archs._keys import TEMPERATURE
from converters.to_gguf.rope.loader import FREQS, LONG, SHORT, Loader, with_every_type
from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role

ARCH = Arch(
    name="mistral3",
    families=("ministral3",),
    runs=LLAMA_BLOCKS,
    pairing=Pairing.ADJACENT,
    traits=frozenset({Trait.QUERY_TEMPERATURE}),
    biases=QKV | MLP | {Role.O},
    loader=Loader({**with_every_type(FREQS), "longrope": (LONG, SHORT)}),
    keys=(TEMPERATURE,),
)
