"""dots.llm1: norms on the heads of q and k, experts as DeepSeek-V3 routes them; no table, and as
many key/value heads as heads, but in a host.
"""

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, QKV, Arch
from converters.to_gguf.archs._experts import (
    EXPERTS,
    GROUPS,
    LEADING_DENSE,
    SHARED_EXPERTS,
    SIGMOID_ROUTING,
    SIGMOID_TRAITS,
)
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role
from ropeconv.model import Model


def _grouped(model: Model) -> str | None:
    attention = model.stack.attention
    if attention.num_kv_heads == attention.num_heads:
        return None
    return (
        f"llama.cpp's dots1 has as many key/value heads as heads, and config.json says "
        f"{attention.num_kv_heads} and {attention.num_heads}"
    )


ARCH = Arch(
    name="dots1",
    families=("dots1",),
    on_request=("step35",),
    runs=LLAMA_BLOCKS | {MixtureOfExperts},
    biases=QKV | {Role.ROUTER_BIAS},
    traits=SIGMOID_TRAITS | {Trait.HEAD_NORMS},
    untied=True,
    keys=(EXPERTS, SHARED_EXPERTS, LEADING_DENSE, SIGMOID_ROUTING, GROUPS),
    obstacle=_grouped,
)
