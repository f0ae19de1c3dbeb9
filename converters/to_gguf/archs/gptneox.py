"""GPT-NeoX and Pythia: LayerNorm, biases, a part of the head rotates, parallel residual or not."""

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import MLP, QKV, Arch, OwnKeys, Stated
from converters.to_gguf.file.keys import KeyValue, boolean
from converters.to_gguf.rope.loader import Loader
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.embedding import Embedding
from ropeconv.arch.blocks.head import Head
from ropeconv.arch.blocks.mlp import GELU, PlainMlp
from ropeconv.arch.blocks.norm import LayerNorm
from ropeconv.arch.blocks.residual import Parallel, PreNorm
from ropeconv.arch.blocks.weight import Role
from ropeconv.model import Model


def _write_residual(model: Model) -> list[KeyValue]:
    parallel = all(isinstance(layer.residual, Parallel) for layer in model.stack.layers)
    return [boolean("use_parallel_residual", parallel)]


def _residual(stated: Stated) -> Mapping[str, Any]:
    return {"parallel_residual": bool(stated.get("use_parallel_residual", False))}


ARCH = Arch(
    name="gptneox",
    families=("gpt_neox",),
    runs=frozenset({Embedding, LayerNorm, Head, PreNorm, Parallel, Attention, PlainMlp}),
    biases=QKV | MLP | {Role.O, Role.ATTN_NORM, Role.FFN_NORM, Role.OUTPUT_NORM},
    needs_bias=frozenset({Role.QKV, Role.O}),
    activations=GELU,
    square=True,
    untied=True,
    loader=Loader(whole_head=False),
    keys=(OwnKeys(_write_residual, _residual),),
)
