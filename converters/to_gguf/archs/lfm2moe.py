"""LFM2 mixtures of experts: as LFM2, with experts that a sigmoid scores and a bias chooses, whose
weights are made to add up to 1; no table.
"""

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, QKV, Arch, OwnKeys, Stated
from converters.to_gguf.archs._experts import (
    ELSEWHERE,
    EXPERTS,
    FUNCTION,
    GATING,
    LEADING_DENSE,
    mixtures,
    normed,
    unscaled,
)
from converters.to_gguf.archs.lfm2 import NAMES, TAPS, never_still
from converters.to_gguf.file.keys import KeyValue, uint32
from converters.to_gguf.rope.loader import Loader
from ropeconv.arch.blocks.moe import MixtureOfExperts, Scores
from ropeconv.arch.blocks.states.short_conv import ShortConv
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.layers import CONV
from ropeconv.model import Model


def _write_scores(_model: Model) -> list[KeyValue]:
    return [uint32(FUNCTION, GATING[Scores.SIGMOID])]


def _read_fixed(stated: Stated) -> Mapping[str, Any]:
    return unscaled(stated) | {"normed_weights": True, "routed_scale": 1.0, "router_bias": True}


def _obstacle(model: Model) -> str | None:
    if not mixtures(model.stack):
        return f"llama.cpp's lfm2moe does not load without experts in a layer; {ELSEWHERE}"
    if any(block.routing.scale != 1.0 for block in mixtures(model.stack).values()):
        return f"llama.cpp's lfm2moe has no place for routed_scaling_factor; {ELSEWHERE}"
    return never_still(model) or normed("lfm2moe", model, wanted=True)


ARCH = Arch(
    name="lfm2moe",
    families=("lfm2_moe",),
    runs=LLAMA_BLOCKS | {ShortConv, MixtureOfExperts},
    biases=QKV | {Role.ROUTER_BIAS},
    needs_bias=frozenset({Role.ROUTER_BIAS}),
    names=NAMES,
    traits=frozenset({Trait.HEAD_NORMS, Trait.SIGMOID_ROUTING, Trait.ROUTER_BIAS}),
    square=True,
    loader=Loader(recurrent=CONV),
    keys=(
        TAPS,
        EXPERTS,
        LEADING_DENSE,
        OwnKeys(_write_scores, _read_fixed, plain=lambda _: True),
    ),
    obstacle=_obstacle,
)
