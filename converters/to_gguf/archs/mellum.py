"""Mellum 2: Qwen3's mixtures with windows; layers with one rotate by the global base, unscaled; no
table.
"""

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import ENDS, QKV, Arch, OwnKeys, Stated
from converters.to_gguf.archs._experts import EXPERTS, dense_among, normed, unscaled
from converters.to_gguf.archs._keys import WINDOWS
from converters.to_gguf.archs.olmo2 import own_base
from converters.to_gguf.rope.loader import GLOBAL_BASE, Loader
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.traits import Trait


def _read_fixed(stated: Stated) -> Mapping[str, Any]:
    return unscaled(stated) | {"normed_weights": True}


ARCH = Arch(
    name="mellum",
    families=("mellum",),
    runs=ENDS | {PreNorm, Attention, MixtureOfExperts},
    biases=QKV,
    traits=frozenset({Trait.HEAD_NORMS}),
    untied=True,
    loader=Loader(sliding=GLOBAL_BASE, pattern=4),
    keys=(EXPERTS, WINDOWS, OwnKeys(lambda _: [], _read_fixed, plain=lambda _: True)),
    obstacle=lambda model: dense_among("mellum", model) or normed("mellum", model, wanted=True),
    traps=(own_base,),
)
