"""StarCoder 2: LayerNorm, biases, a GELU MLP without a gate; no window, no table."""

from converters.to_gguf.archs._arch import QKV, Arch
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.embedding import Embedding
from ropeconv.arch.blocks.head import Head
from ropeconv.arch.blocks.mlp import GELU, PlainMlp
from ropeconv.arch.blocks.norm import LayerNorm
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.weight import Role

NEEDED = frozenset({Role.O, Role.UP, Role.DOWN, Role.ATTN_NORM, Role.FFN_NORM, Role.OUTPUT_NORM})

ARCH = Arch(
    name="starcoder2",
    families=("starcoder2",),
    runs=frozenset({Embedding, LayerNorm, Head, PreNorm, Attention, PlainMlp}),
    biases=QKV | NEEDED,
    needs_bias=NEEDED,
    activations=GELU,
    square=True,
)
