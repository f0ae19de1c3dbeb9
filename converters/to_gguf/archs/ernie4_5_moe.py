"""ERNIE 4.5 mixtures: neighbours as rotary pairs, experts chosen with a bias; no table, and no bias
in an MLP.
"""

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, QKV, Arch, OwnKeys, Stated
from converters.to_gguf.archs._experts import (
    ELSEWHERE,
    EXPERTS,
    LEADING,
    mixtures,
    normed,
    shared,
    unscaled,
)
from converters.to_gguf.file.keys import KeyValue, uint32
from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role
from ropeconv.model import Model

STEP = "interleave_moe_layer_step"


def _write_places(model: Model) -> list[KeyValue]:
    sizes = model.sizes
    return [uint32(LEADING, sizes.first_sparse), uint32(STEP, sizes.sparse_step)]


def _read_places(stated: Stated) -> Mapping[str, Any]:
    return unscaled(stated) | {
        "first_sparse": stated.get(LEADING) or 0,
        "last_sparse": -1,
        "sparse_step": stated.get(STEP) or 1,
    }


def _read_shared(width: int, stated: Stated) -> Mapping[str, Any]:
    return {"num_shared": width // EXPERTS.sizes(stated)["expert_size"]}


def _obstacle(model: Model) -> str | None:
    """A last layer with experts that is not the model's last."""
    first, step = model.sizes.first_sparse, model.sizes.sparse_step
    places = {n for n in range(first, len(model.stack.layers)) if (n + 1) % step == 0}
    if places != set(mixtures(model.stack)):
        return (
            f"llama.cpp's ernie4_5-moe has experts up to the last layer, and config.json says "
            f"moe_layer_end_index {model.sizes.last_sparse}; {ELSEWHERE}"
        )
    return normed("ernie4_5-moe", model, wanted=True)


ARCH = Arch(
    name="ernie4_5-moe",
    families=("ernie4_5_moe",),
    runs=LLAMA_BLOCKS | {MixtureOfExperts},
    pairing=Pairing.ADJACENT,
    biases=QKV | {Role.O, Role.ROUTER_BIAS},
    traits=frozenset({Trait.ROUTER_BIAS, Trait.SHARED_EXPERT}),
    keys=(
        EXPERTS,
        shared(_read_shared),
        OwnKeys(_write_places, _read_places, plain=lambda _: True),
    ),
    obstacle=_obstacle,
)
