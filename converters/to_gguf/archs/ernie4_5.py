"""ERNIE 4.5, dense: neighbours as rotary pairs; no table, and no bias in the MLP, but in llama."""

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, QKV, Arch
from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.weight import Role

ARCH = Arch(
    name="ernie4_5",
    families=("ernie4_5",),
    hosts=("llama",),
    runs=LLAMA_BLOCKS,
    pairing=Pairing.ADJACENT,
    biases=QKV | {Role.O},
)
