"""OLMoE: norms over the whole of q and of k, experts in every layer whose weights stay as they are;
no table.
"""

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import ENDS, QKV, Arch, OwnKeys, Stated
from converters.to_gguf.archs._experts import ELSEWHERE, WIDE_EXPERTS, normed, unscaled
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.model import Model


def _obstacle(model: Model) -> str | None:
    attention = model.stack.attention
    if attention.num_kv_heads != attention.num_heads:
        return (
            f"llama.cpp's olmoe has as many key/value heads as heads, and config.json says "
            f"{attention.num_kv_heads} and {attention.num_heads}; {ELSEWHERE}"
        )
    return normed("olmoe", model, wanted=False)


def _read_fixed(stated: Stated) -> Mapping[str, Any]:
    return unscaled(stated) | {"normed_weights": False}


ARCH = Arch(
    name="olmoe",
    families=("olmoe",),
    runs=ENDS | {PreNorm, Attention, MixtureOfExperts},
    biases=QKV,
    traits=frozenset({Trait.WHOLE_NORMS}),
    square=True,
    untied=True,
    keys=(WIDE_EXPERTS, OwnKeys(lambda _: [], _read_fixed, plain=lambda _: True)),
    obstacle=_obstacle,
)
