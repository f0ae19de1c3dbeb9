"""Gemma 1: a gated GELU MLP, scaled embeddings, tied; no table."""

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, QKV, Arch
from ropeconv.arch.blocks.traits import Trait

ARCH = Arch(
    name="gemma",
    families=("gemma",),
    runs=LLAMA_BLOCKS,
    # the embedding's scale is built in
    traits=frozenset({Trait.EMBEDDING_SCALE}),
    # src/models/gemma.cpp: ggml's GELU is the tanh form
    activations=("gelu_pytorch_tanh", "gelu"),
    biases=QKV,
    tied=True,
)
