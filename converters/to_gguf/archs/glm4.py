"""GLM-4-0414: GLM with norms around both blocks; no table."""

from converters.to_gguf.archs._arch import ENDS, QKV, Arch
from converters.to_gguf.rope.loader import Loader
from ropeconv.arch.blocks.attention import Attention, Pairing
from ropeconv.arch.blocks.mlp import FusedGatedMlp
from ropeconv.arch.blocks.residual import Sandwich
from ropeconv.arch.blocks.weight import Role

ARCH = Arch(
    name="glm4",
    families=("glm4",),
    runs=ENDS | {Sandwich, Attention, FusedGatedMlp},
    pairing=Pairing.ADJACENT,
    names={Role.GATE_UP: "blk.{n}.ffn_up"},
    biases=QKV,
    loader=Loader(whole_head=False),
)
