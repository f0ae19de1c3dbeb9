"""OLMo 1: LayerNorms without tensors; q, k and v are clamped where a key says so; no table."""

from converters.to_gguf.archs._arch import QKV, Arch
from converters.to_gguf.archs._keys import CLAMP
from converters.to_gguf.quant.exceptions import Exceptions
from ropeconv.arch.blocks.attention import Attention, Pairing
from ropeconv.arch.blocks.embedding import Embedding
from ropeconv.arch.blocks.head import Head
from ropeconv.arch.blocks.mlp import GatedMlp
from ropeconv.arch.blocks.norm import BareLayerNorm
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.traits import Trait

ARCH = Arch(
    name="olmo",
    families=("olmo",),
    runs=frozenset({Embedding, BareLayerNorm, Head, PreNorm, Attention, GatedMlp}),
    traits=frozenset({Trait.NORM_WITHOUT_WEIGHT, Trait.CLAMPED_QKV}),
    pairing=Pairing.ADJACENT,
    biases=QKV,
    square=True,
    keys=(CLAMP,),
    mix=Exceptions(seventy_b_layers=80),
)
