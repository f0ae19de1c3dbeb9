"""Gemma 3 text: windows in five of six layers, which rotate by a base of their own and are never
scaled.
"""

import math
from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import ENDS, QKV, Arch, OwnKeys, Stated
from converters.to_gguf.archs._keys import SOFTCAP, WINDOWS
from converters.to_gguf.rope.case import RotaryCase, change
from converters.to_gguf.rope.loader import OWN_BASE, Loader
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.mlp import GELU, GatedMlp
from ropeconv.arch.blocks.residual import Sandwich
from ropeconv.arch.blocks.traits import Trait
from ropeconv.finding import ERROR, Finding
from ropeconv.model import Model

# src/models/gemma3.cpp: the 27B model divides queries by sqrt(hidden_size / heads), every other one
# by sqrt(head_dim), and tells it by its layers
LAYERS_OF_27B = 62


def _built_in(*, layers: int, hidden_size: int, heads: int, head_dim: int) -> int:
    """What the graph divides queries by the root of."""
    return hidden_size // heads if layers == LAYERS_OF_27B else head_dim


def _query_scale(model: Model) -> str | None:
    stack = model.stack
    built_in = _built_in(
        layers=len(stack.layers),
        hidden_size=stack.hidden_size,
        heads=stack.attention.num_heads,
        head_dim=stack.attention.head_dim,
    )
    stated = model.sizes.query_scale_dim
    if stated == built_in:
        return None
    return (
        f"llama.cpp's gemma3 scales queries by {built_in}, "
        f"config.json says query_pre_attn_scalar {stated}"
    )


def _read_query_scale(stated: Stated) -> Mapping[str, Any]:
    hidden, heads = stated.get("embedding_length"), stated.get("attention.head_count")
    found = _built_in(
        layers=stated.get("block_count"),
        hidden_size=hidden,
        heads=heads,
        head_dim=stated.get("attention.key_length", hidden // heads),
    )
    return {"query_scale_dim": found}


def leaking(case: RotaryCase) -> Finding | None:
    """A magnitude, which reaches the layers with a window."""
    rest = case.get("attn_factor", 1.0)
    if not isinstance(rest, int | float) or math.isclose(rest, 1.0, rel_tol=1e-9):
        return None
    return Finding(
        "G6",
        ERROR,
        f"attn_factor {rest:g} on {case.arch}",
        {"llama.cpp": "multiplies the sliding-window layers too"},
        "a copy without it has YaRN's own magnitude on the full-attention layers; for another take "
        "safetensors or ONNX",
        change({case.key("attn_factor"): None}),
    )


ARCH = Arch(
    name="gemma3",
    families=("gemma3_text",),
    runs=ENDS | {Sandwich, Attention, GatedMlp},
    biases=QKV,
    # the embedding's scale is built in
    traits=frozenset(
        {Trait.EMBEDDING_SCALE, Trait.ATTENTION_SCALE, Trait.LOGIT_CAP, Trait.HEAD_NORMS}
    ),
    activations=GELU,
    loader=Loader(sliding=OWN_BASE, pattern=6),
    # the graph's own scale has no key: nothing is written, and read is what it computes
    keys=(WINDOWS, OwnKeys(lambda _: [], _read_query_scale), SOFTCAP),
    obstacle=_query_scale,
    traps=(leaking,),
)
