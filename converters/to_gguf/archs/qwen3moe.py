"""Qwen3 mixtures of experts: every layer has experts, and their weights are made to add up to 1."""

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import ENDS, QKV, Arch, OwnKeys, Stated
from converters.to_gguf.archs._keys import EXPERTS
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.errors import CheckpointError
from ropeconv.model import Model

ELSEWHERE = "take `ropeconv onnx` or `ropeconv safetensors`"


def _fixed_in_the_graph(model: Model) -> str | None:
    mlps = [layer.mlp for layer in model.stack.layers]
    dense = [n for n, mlp in enumerate(mlps) if not isinstance(mlp, MixtureOfExperts)]
    if dense:
        return (
            f"llama.cpp's qwen3moe has experts in every layer, and config.json keeps a dense MLP "
            f"in "
            f"layer {dense[0]} (mlp_only_layers, decoder_sparse_step); {ELSEWHERE}"
        )
    if any(isinstance(mlp, MixtureOfExperts) and not mlp.routing.normed for mlp in mlps):
        return (
            f"llama.cpp's qwen3moe makes the weights of a token's experts add up to 1, and "
            f"config.json says norm_topk_prob false; {ELSEWHERE}"
        )
    return None


def _read_fixed(stated: Stated) -> Mapping[str, Any]:
    scale = stated.get("expert_weights_scale", 0.0)
    if scale not in (0.0, 1.0):
        raise CheckpointError(
            f"the GGUF file has qwen3moe.expert_weights_scale {scale:g}, by which no config.json "
            f"of "
            f"the family can multiply; convert the original checkpoint"
        )
    return {"normed_weights": True, "sparse_step": 1, "mlp_only_layers": []}


ARCH = Arch(
    name="qwen3moe",
    families=("qwen3_moe",),
    on_request=("step35",),
    runs=ENDS | {PreNorm, Attention, MixtureOfExperts},
    biases=QKV,
    traits=frozenset({Trait.HEAD_NORMS}),
    keys=(EXPERTS, OwnKeys(lambda _: [], _read_fixed)),
    obstacle=_fixed_in_the_graph,
)
