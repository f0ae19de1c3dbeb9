"""Nemotron and Minitron: LayerNorms that multiply by 1 + weight, a squared ReLU without a gate, a
part of the head rotates; no table.
"""

from converters.to_gguf.archs._arch import MLP, QKV, Arch
from converters.to_gguf.rope.loader import Loader
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.embedding import Embedding
from ropeconv.arch.blocks.head import Head
from ropeconv.arch.blocks.mlp import RELU2, PlainMlp
from ropeconv.arch.blocks.norm import LayerNorm
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.weight import Role

NORMS = frozenset({Role.ATTN_NORM, Role.FFN_NORM, Role.OUTPUT_NORM})

ARCH = Arch(
    name="nemotron",
    families=("nemotron",),
    runs=frozenset({Embedding, LayerNorm, Head, PreNorm, Attention, PlainMlp}),
    biases=QKV | MLP | NORMS | {Role.O},
    needs_bias=NORMS,
    activations=RELU2,
    square=True,
    untied=True,
    loader=Loader(whole_head=False),
)
