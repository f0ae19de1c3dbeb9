"""Phi-1, Phi-1.5, Phi-2: one LayerNorm feeds attention and MLP, biases everywhere, a part of the
head rotates; no table.
"""

from converters.to_gguf.archs._arch import QKV, Arch
from converters.to_gguf.rope.loader import Loader
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.embedding import Embedding
from ropeconv.arch.blocks.head import Head
from ropeconv.arch.blocks.mlp import GELU, PlainMlp
from ropeconv.arch.blocks.norm import LayerNorm
from ropeconv.arch.blocks.residual import SharedParallel
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role

NEEDED = frozenset({Role.O, Role.UP, Role.DOWN, Role.ATTN_NORM, Role.OUTPUT_NORM, Role.OUTPUT})

ARCH = Arch(
    name="phi2",
    families=("phi",),
    runs=frozenset({Embedding, LayerNorm, Head, SharedParallel, Attention, PlainMlp}),
    traits=frozenset({Trait.OUTPUT_BIAS}),
    biases=QKV | NEEDED,
    needs_bias=NEEDED,
    activations=GELU,
    square=True,
    untied=True,
    loader=Loader(whole_head=False),
)
