"""Arcee AFM: llama's graph with a squared ReLU in place of the gate; takes `rope_freqs`."""

from converters.to_gguf.archs._arch import ENDS, QKV, Arch
from converters.to_gguf.rope.loader import FREQS, Loader, with_every_type
from ropeconv.arch.blocks.attention import Attention, Pairing
from ropeconv.arch.blocks.mlp import RELU2, PlainMlp
from ropeconv.arch.blocks.residual import PreNorm

ARCH = Arch(
    name="arcee",
    families=("arcee",),
    runs=ENDS | {PreNorm, Attention, PlainMlp},
    pairing=Pairing.ADJACENT,
    biases=QKV,
    activations=RELU2,
    loader=Loader(with_every_type(FREQS)),
)
