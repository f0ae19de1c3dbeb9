"""HunYuan, dense: norms on the heads of q and k after the rotation; no table."""

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, QKV, Arch
from ropeconv.arch.blocks.traits import Trait

ARCH = Arch(
    name="hunyuan-dense",
    families=("hunyuan_v1_dense",),
    runs=LLAMA_BLOCKS,
    traits=frozenset({Trait.HEAD_NORMS, Trait.NORMS_AFTER_ROTATION}),
    biases=QKV,
)
