"""Jais 2: LayerNorm, biases, a squared ReLU without a gate; no table."""

from converters.to_gguf.archs._arch import QKV, Arch
from converters.to_gguf.quant.exceptions import Exceptions
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.embedding import Embedding
from ropeconv.arch.blocks.head import Head
from ropeconv.arch.blocks.mlp import RELU2, PlainMlp
from ropeconv.arch.blocks.norm import LayerNorm
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.weight import Role

NEEDED = frozenset({Role.O, Role.UP, Role.DOWN, Role.ATTN_NORM, Role.FFN_NORM, Role.OUTPUT_NORM})

ARCH = Arch(
    name="jais2",
    families=("jais2",),
    runs=frozenset({Embedding, LayerNorm, Head, PreNorm, Attention, PlainMlp}),
    biases=QKV | NEEDED,
    needs_bias=NEEDED,
    activations=RELU2,
    mix=Exceptions(seventy_b_layers=68),
)
