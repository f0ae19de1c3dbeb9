"""Granite 3 mixtures: Granite with experts in every layer, as wide as an MLP would be."""

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import ENDS, QKV, Arch, Stated
from converters.to_gguf.archs._experts import WIDE_EXPERTS, shared
from converters.to_gguf.archs._keys import (
    ATTENTION_SCALE,
    EMBEDDING_SCALE,
    LOGITS_DIVIDED,
    RESIDUAL_SCALE,
)
from converters.to_gguf.rope.loader import FREQS, LONG, SHORT, Loader, with_every_type
from ropeconv.arch.blocks.attention import Attention, Pairing
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role


def _read_shared(width: int, _: Stated) -> Mapping[str, Any]:
    return {"shared_width": width}


SHARED_WIDTH = shared(_read_shared)

ARCH = Arch(
    name="granitemoe",
    families=("granitemoe", "granitemoeshared"),
    runs=ENDS | {PreNorm, Attention, MixtureOfExperts},
    pairing=Pairing.ADJACENT,
    traits=frozenset(
        {
            Trait.EMBEDDING_SCALE,
            Trait.RESIDUAL_SCALE,
            Trait.ATTENTION_SCALE,
            Trait.LOGIT_SCALE,
            Trait.SHARED_EXPERT,
        }
    ),
    biases=QKV | {Role.O},
    loader=Loader({**with_every_type(FREQS), "longrope": (LONG, SHORT)}),
    keys=(
        EMBEDDING_SCALE,
        RESIDUAL_SCALE,
        ATTENTION_SCALE,
        LOGITS_DIVIDED,
        WIDE_EXPERTS,
        SHARED_WIDTH,
    ),
)
