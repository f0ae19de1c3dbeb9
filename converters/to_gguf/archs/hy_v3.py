"""Hy 3: norms on the heads of q and k, sigmoid-routed experts and one that every token takes; no
table, but in a host.
"""

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, NAMES, QKV, Arch, OwnKeys, Stated
from converters.to_gguf.archs._experts import (
    EXPERTS,
    SIGMOID_ROUTING,
    SIGMOID_TRAITS,
    normed,
    shared,
)
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families.hy_v3 import DENSE, SPARSE


def _read_kinds(stated: Stated) -> Mapping[str, Any]:
    """A layer without a router is dense."""
    router = f"{NAMES[Role.ROUTER]}.weight"
    layers = range(stated.get("block_count") - (stated.get("nextn_predict_layers") or 0))
    sparse = [router.format(n=n) in stated.tensors for n in layers]
    return {"mlp_kinds": [SPARSE if found else DENSE for found in sparse]}


def _read_shared(width: int, stated: Stated) -> Mapping[str, Any]:
    size = EXPERTS.sizes(stated)["expert_size"]
    return {"num_shared": (width or size) // size}


ARCH = Arch(
    name="hy_v3",
    families=("hy_v3",),
    on_request=("step35",),
    runs=LLAMA_BLOCKS | {MixtureOfExperts},
    bare=frozenset({Role.ROUTER_BIAS}),
    biases=QKV | {Role.ROUTER_BIAS},
    traits=SIGMOID_TRAITS | {Trait.HEAD_NORMS},
    keys=(
        EXPERTS,
        shared(_read_shared),
        SIGMOID_ROUTING,
        OwnKeys(lambda _: [], _read_kinds, plain=lambda _: True),
    ),
    obstacle=lambda model: normed("hy_v3", model, wanted=True),
)
