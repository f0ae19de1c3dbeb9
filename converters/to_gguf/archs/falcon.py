"""Falcon: attention and MLP side by side behind one LayerNorm or two, one matrix for q, k and v; no
bias, no table.
"""

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import Arch, Stated
from converters.to_gguf.archs._keys import shown
from converters.to_gguf.quant.exceptions import Exceptions
from converters.to_gguf.quant.places import Lines, anywhere, first_part, outer_and_every_third
from converters.to_gguf.quant.tables import LOWEST
from converters.to_gguf.quant.tables import MIX as COMMON
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.embedding import Embedding
from ropeconv.arch.blocks.head import Head
from ropeconv.arch.blocks.mlp import GELU, PlainMlp
from ropeconv.arch.blocks.norm import LayerNorm
from ropeconv.arch.blocks.residual import Parallel, SharedParallel
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role

NORMS = frozenset({Role.ATTN_NORM, Role.FFN_NORM, Role.OUTPUT_NORM})


def _form(stated: Stated) -> Mapping[str, Any]:
    """The older form where it says the same: one norm, and one key/value head or one a head."""
    heads = stated.get("attention.head_count")
    kv_heads = stated.get("attention.head_count_kv", heads)
    two = "blk.0.attn_norm_2.weight" in stated.tensors
    return {
        "new_decoder": two or kv_heads not in (1, heads),
        "multi_query": kv_heads == 1,
        "parallel_attn": True,
        "norms": 2 if two else 1,
        "stated_kv_heads": kv_heads,
    }


# src/llama-quant.cpp: its down projections and outputs have rules of their own
MIX: Mapping[str, Mapping[str, Lines]] = {
    "ffn_down": {
        **COMMON["ffn_down"],
        "Q3_K_M": ((first_part(16), "Q5_K"), (outer_and_every_third, "Q4_K")),
        "Q3_K_L": ((anywhere, "Q4_K"),),
        "Q4_K_S": (),
        "Q4_K_M": ((first_part(16), "Q6_K"), (outer_and_every_third, "Q5_K")),
    },
    "attn_output": {
        **{name: lines for name, lines in COMMON["attn_output"].items() if name in LOWEST},
        "Q3_K_L": ((anywhere, "Q4_K"),),
    },
}

ARCH = Arch(
    name="falcon",
    families=("falcon",),
    runs=frozenset({Embedding, LayerNorm, Head, Parallel, SharedParallel, Attention, PlainMlp}),
    traits=frozenset({Trait.GROUPED_ROWS}),
    biases=NORMS,
    needs_bias=frozenset({Role.ATTN_NORM, Role.OUTPUT_NORM}),
    activations=GELU,
    # in place of the common names: the MLP's norm is the first there
    names_of={
        Parallel: {Role.ATTN_NORM: "blk.{n}.attn_norm_2", Role.FFN_NORM: "blk.{n}.attn_norm"}
    },
    square=True,
    keys=(shown(_form),),
    mix=Exceptions(mix=MIX, output="Q8_0"),
)
