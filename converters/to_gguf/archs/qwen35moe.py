"""Qwen3.5 mixtures of experts: as Qwen3.5, with experts whose weights add up to 1 and a gated one
that every token takes; no table.
"""

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import ENDS, QKV, Arch, OwnKeys, Stated
from converters.to_gguf.archs._delta import DELTA_NET, NAMES, SECTIONS
from converters.to_gguf.archs._experts import EXPERTS, normed, shared, unscaled
from converters.to_gguf.rope.loader import Loader
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.states.delta_net import GatedDeltaNet
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.layers import LINEAR


def read_shared(width: int, stated: Stated) -> Mapping[str, Any]:
    """The shared expert's width, by the names of sizes."""
    # the loader's own rule for files without the key
    return {"shared_size": width or stated.get("feed_forward_length")}


ARCH = Arch(
    name="qwen35moe",
    families=("qwen3_5_moe_text",),
    runs=ENDS | {PreNorm, Attention, GatedDeltaNet, MixtureOfExperts},
    biases=QKV | {Role.TIME_STEP},
    bare=frozenset({Role.DECAY}),
    names=NAMES,
    traits=frozenset(
        {Trait.HEAD_NORMS, Trait.GATED_HEADS, Trait.SHARED_EXPERT, Trait.SHARED_EXPERT_GATE}
    ),
    tiled=True,
    loader=Loader(whole_head=False, recurrent=LINEAR, attention_every=4),
    keys=(
        DELTA_NET,
        SECTIONS,
        EXPERTS,
        shared(read_shared),
        OwnKeys(lambda _: [], unscaled),
    ),
    obstacle=lambda model: normed("qwen35moe", model, wanted=True),
)
