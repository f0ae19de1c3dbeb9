"""Seed-OSS: heads of any size, the MLP's norm under another name, no table but in llama."""

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, QKV, Arch
from ropeconv.arch.blocks.weight import Role

ARCH = Arch(
    name="seed_oss",
    families=("seed_oss",),
    hosts=("llama",),
    runs=LLAMA_BLOCKS,
    biases=QKV,
    names={Role.FFN_NORM: "blk.{n}.post_attention_norm"},
)
