"""Qwen2 mixtures of experts: a shared expert behind a gate in every layer; the others' weights stay
as they are; no table.
"""

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import ENDS, QKV, Arch, OwnKeys, Stated
from converters.to_gguf.archs._experts import EXPERTS, dense_among, normed, shared, unscaled
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.traits import Trait


def _read_fixed(stated: Stated) -> Mapping[str, Any]:
    return unscaled(stated) | {"normed_weights": False, "sparse_step": 1, "mlp_only_layers": []}


def _read_shared(width: int, stated: Stated) -> Mapping[str, Any]:
    # the loader's own rule for files without the key
    return {"shared_size": width or stated.get("feed_forward_length")}


ARCH = Arch(
    name="qwen2moe",
    families=("qwen2_moe",),
    runs=ENDS | {PreNorm, Attention, MixtureOfExperts},
    biases=QKV,
    traits=frozenset({Trait.SHARED_EXPERT, Trait.SHARED_EXPERT_GATE}),
    square=True,
    untied=True,
    keys=(
        EXPERTS,
        shared(_read_shared),
        OwnKeys(lambda _: [], _read_fixed, plain=lambda _: True),
    ),
    obstacle=lambda model: (
        dense_among("qwen2moe", model) or normed("qwen2moe", model, wanted=False)
    ),
)
