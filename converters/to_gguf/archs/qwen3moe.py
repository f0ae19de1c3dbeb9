"""Qwen3 mixtures of experts: every layer has experts, and their weights are made to add up to 1."""

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import ENDS, QKV, Arch, OwnKeys, Stated
from converters.to_gguf.archs._experts import EXPERTS, dense_among, normed, unscaled
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.traits import Trait


def _read_fixed(stated: Stated) -> Mapping[str, Any]:
    return unscaled(stated) | {"normed_weights": True, "sparse_step": 1, "mlp_only_layers": []}


ARCH = Arch(
    name="qwen3moe",
    families=("qwen3_moe",),
    on_request=("step35",),
    runs=ENDS | {PreNorm, Attention, MixtureOfExperts},
    biases=QKV,
    traits=frozenset({Trait.HEAD_NORMS}),
    keys=(EXPERTS, OwnKeys(lambda _: [], _read_fixed)),
    obstacle=lambda model: dense_among("qwen3moe", model) or normed("qwen3moe", model, wanted=True),
)
