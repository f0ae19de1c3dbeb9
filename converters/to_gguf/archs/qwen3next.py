"""Qwen3-Next: gated delta nets, whose b and a come key head by key head, attention with gated
heads, experts whose weights add up to 1 and a gated one that every token takes; no table.
"""

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import ENDS, QKV, Arch, OwnKeys, Stated
from converters.to_gguf.archs._delta import DELTA_NET, NAMES
from converters.to_gguf.archs._experts import EXPERTS, dense_among, normed, shared, unscaled
from converters.to_gguf.archs.qwen35moe import read_shared
from converters.to_gguf.rope.loader import Loader
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.states.delta_net import GatedDeltaNet
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.layers import LINEAR


def _read_fixed(stated: Stated) -> Mapping[str, Any]:
    return unscaled(stated) | {"normed_weights": True, "sparse_step": 1, "mlp_only_layers": []}


ARCH = Arch(
    name="qwen3next",
    families=("qwen3_next",),
    runs=ENDS | {PreNorm, Attention, GatedDeltaNet, MixtureOfExperts},
    biases=QKV | {Role.TIME_STEP},
    bare=frozenset({Role.DECAY}),
    names=NAMES,
    traits=frozenset(
        {
            Trait.HEAD_NORMS,
            Trait.GATED_HEADS,
            Trait.SHARED_EXPERT,
            Trait.SHARED_EXPERT_GATE,
            Trait.STATE_ROWS_BY_HEAD,
        }
    ),
    loader=Loader(whole_head=False, recurrent=LINEAR, attention_every=4),
    keys=(DELTA_NET, EXPERTS, shared(read_shared), OwnKeys(lambda _: [], _read_fixed)),
    obstacle=lambda model: (
        dense_among("qwen3next", model) or normed("qwen3next", model, wanted=True)
    ),
)
