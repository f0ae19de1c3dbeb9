"""Phi-3 and Phi-4: fused projections, a part of the head rotates, long and short tables with any
type.
"""

from converters.to_gguf.archs._arch import ENDS, QKV, Arch
from converters.to_gguf.rope.loader import LONG, SHORT, Loader, with_every_type
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.mlp import FusedGatedMlp
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.weight import Role

ARCH = Arch(
    name="phi3",
    families=("phi3",),
    on_request=("granite_swa",),
    runs=ENDS | {PreNorm, Attention, FusedGatedMlp},
    biases=QKV,
    names={Role.GATE_UP: "blk.{n}.ffn_up"},
    square=True,
    loader=Loader(with_every_type(LONG, SHORT), whole_head=False),
)
