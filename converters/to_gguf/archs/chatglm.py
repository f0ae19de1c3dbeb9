"""GLM-4-9B: neighbours as rotary pairs in a part of each head, gate and up in one matrix; no table,
but in llama, which keeps the rest of a head still, and on request where a part can turn.
"""

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, QKV, Arch
from converters.to_gguf.rope.loader import Loader
from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.weight import Role

ARCH = Arch(
    name="chatglm",
    families=("glm",),
    hosts=("llama",),
    on_request=("step35",),
    runs=LLAMA_BLOCKS,
    pairing=Pairing.ADJACENT,
    names={Role.GATE_UP: "blk.{n}.ffn_up"},
    biases=QKV,
    square=True,
    loader=Loader(whole_head=False),
)
