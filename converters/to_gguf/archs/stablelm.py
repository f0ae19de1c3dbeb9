"""StableLM: LayerNorm, a part of the head rotates; norms of its own for every head of q and k, and
one norm for attention and MLP, where tensors say so; no table.
"""

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import QKV, Arch, Stated
from converters.to_gguf.archs._keys import shown
from converters.to_gguf.rope.loader import Loader
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.embedding import Embedding
from ropeconv.arch.blocks.head import Head
from ropeconv.arch.blocks.mlp import GatedMlp
from ropeconv.arch.blocks.norm import HeadLayerNorms, LayerNorm
from ropeconv.arch.blocks.residual import PreNorm, SharedParallel
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role

BLOCKS = {Embedding, LayerNorm, Head, PreNorm, SharedParallel, Attention, GatedMlp}
NORMS = frozenset({Role.ATTN_NORM, Role.FFN_NORM, Role.OUTPUT_NORM})


def _forms(stated: Stated) -> Mapping[str, Any]:
    return {
        "qk_layernorm": "blk.0.attn_q_norm.weight" in stated.tensors,
        "parallel_residual": "blk.0.ffn_norm.weight" not in stated.tensors,
    }


ARCH = Arch(
    name="stablelm",
    families=("stablelm",),
    runs=frozenset({*BLOCKS, HeadLayerNorms}),
    traits=frozenset({Trait.OWN_HEAD_NORMS, Trait.LAYER_NORM_WITHOUT_BIAS}),
    biases=QKV | NORMS,
    needs_bias=frozenset({Role.ATTN_NORM, Role.OUTPUT_NORM}),
    square=True,
    untied=True,
    loader=Loader(whole_head=False),
    keys=(shown(_forms),),
)
