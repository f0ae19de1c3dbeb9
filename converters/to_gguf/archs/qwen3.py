"""Qwen3: heads of any size; no table, but on request elsewhere."""

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, QKV, Arch
from ropeconv.arch.blocks.traits import Trait

ARCH = Arch(
    name="qwen3",
    families=("qwen3",),
    on_request=("step35",),
    runs=LLAMA_BLOCKS,
    biases=QKV,
    traits=frozenset({Trait.HEAD_NORMS}),
)
