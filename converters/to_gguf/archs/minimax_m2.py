"""MiniMax M2: norms over the whole of q and of k, sigmoid-routed experts in every layer, part of a
head may rotate; no table.
"""

from converters.to_gguf.archs._arch import ENDS, QKV, Arch, OwnKeys
from converters.to_gguf.archs._experts import EXPERTS, SIGMOID_ROUTING, normed, unscaled
from converters.to_gguf.rope.loader import Loader
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role

ARCH = Arch(
    name="minimax-m2",
    families=("minimax_m2",),
    runs=ENDS | {PreNorm, Attention, MixtureOfExperts},
    biases=QKV | {Role.ROUTER_BIAS},
    traits=frozenset({Trait.WHOLE_NORMS, Trait.SIGMOID_ROUTING, Trait.ROUTER_BIAS}),
    untied=True,
    loader=Loader(whole_head=False),
    keys=(EXPERTS, SIGMOID_ROUTING, OwnKeys(lambda _: [], unscaled)),
    obstacle=lambda model: normed("minimax-m2", model, wanted=True),
)
