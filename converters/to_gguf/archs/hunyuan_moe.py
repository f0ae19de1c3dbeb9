"""HunYuan mixtures: dense HunYuan's attention, experts as wide as the shared one; no table."""

from converters.to_gguf.archs._arch import ENDS, QKV, Arch, OwnKeys
from converters.to_gguf.archs._experts import EXPERTS, normed, unscaled, write_shared
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.traits import Trait

ARCH = Arch(
    name="hunyuan-moe",
    families=("hunyuan_v1_moe",),
    runs=ENDS | {PreNorm, Attention, MixtureOfExperts},
    biases=QKV,
    traits=frozenset({Trait.HEAD_NORMS, Trait.NORMS_AFTER_ROTATION, Trait.SHARED_EXPERT}),
    keys=(
        EXPERTS,
        # which is feed_forward_length, as every expert's
        OwnKeys(write_shared, unscaled, plain=lambda _: True),
    ),
    obstacle=lambda model: normed("hunyuan-moe", model, wanted=True),
)
