"""DeepSeek V3 and its kin: latent attention, absorbed; experts routed by groups or not, or none; no
table. Its graph scales scores by how the rotary embedding is scaled (rope/scores.py).
"""

from typing import Any

from converters.to_gguf.archs._arch import ENDS, Arch, OwnKeys, Stated
from converters.to_gguf.archs._experts import (
    COUNT,
    EXPERTS,
    FUNCTION,
    GATING,
    GROUPS,
    LEADING,
    LEADING_DENSE,
    SHARED_COUNT,
    SHARED_EXPERTS,
    SIGMOID_ROUTING,
    SIGMOID_TRAITS,
    WIDTH,
    dense_behind,
    mixtures,
)
from converters.to_gguf.archs._latent import ABSORBED, ELSEWHERE, latent, other_pairs, query_rank
from converters.to_gguf.file.keys import KeyValue, uint32
from converters.to_gguf.rope.loader import Loader
from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.mla import LatentAttention
from ropeconv.arch.blocks.mlp import GatedMlp
from ropeconv.arch.blocks.moe import MixtureOfExperts, Scores
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families.hy_v3 import DENSE, SPARSE
from ropeconv.errors import CheckpointError
from ropeconv.model import Model

# models of so many layers, the last with such a vocabulary, for which its loader reads no
# attention.q_lora_rank: DeepSeek-V2-Lite and its kin
LITE, LITE_OF_VOCABULARY = (26, 27), (48, 128256)


def _lite(model: Model) -> str | None:
    layers = len(model.stack.layers)
    lite = layers in LITE or (layers, model.stack.vocab_size) == LITE_OF_VOCABULARY
    if not lite or not query_rank(latent(model).query):
        return None
    return (
        f"llama.cpp's deepseek2 takes a model of {layers} layers for one without q_lora_rank, and "
        f"this one has it; {ELSEWHERE}"
    )


def _obstacle(model: Model) -> str | None:
    pairs = other_pairs(model, Pairing.ADJACENT)
    return _lite(model) or pairs or dense_behind("deepseek2", model)


def _write_mlp(model: Model) -> list[KeyValue]:
    """Its loader wants both widths of dense models too."""
    own = [uint32(WIDTH, model.sizes.intermediate_size), uint32(SHARED_COUNT, 0)]
    if mixtures(model.stack):
        own = [*EXPERTS.write(model), *SHARED_EXPERTS.write(model)]
    return [*own, *LEADING_DENSE.write(model)]


def _read_mlp(stated: Stated) -> dict[str, Any]:
    if not stated.get(COUNT):
        return {"dense": True}
    layers = stated.get("block_count") - (stated.get("nextn_predict_layers") or 0)
    first = stated.get(LEADING) or 0
    if not isinstance(first, int) or isinstance(first, bool):
        raise CheckpointError(
            f"the GGUF file has no usable {stated.arch.name}.{LEADING}; convert it again"
        )
    kinds = [DENSE] * min(first, layers) + [SPARSE] * (layers - first)
    leading = LEADING_DENSE.sizes(stated)
    shared = SHARED_EXPERTS.sizes(stated)
    return {**EXPERTS.sizes(stated), **shared, **leading, "mlp_kinds": kinds}


def _read_scores(stated: Stated) -> dict[str, Any]:
    """src/models/deepseek2.cpp: a softmax where the file does not say."""
    softmax = GATING[Scores.SOFTMAX]
    return {"softmax": bool(stated.get(COUNT)) and stated.get(FUNCTION, softmax) == softmax}


ARCH = Arch(
    name="deepseek2",
    families=("deepseek_v3", "deepseek_v2", "glm4_moe_lite", "youtu"),
    runs=ENDS | {PreNorm, LatentAttention, GatedMlp, MixtureOfExperts},
    pairing=Pairing.ADJACENT,
    biases=frozenset({Role.ROUTER_BIAS}),
    traits=SIGMOID_TRAITS,
    loader=Loader(whole_head=False, scales_scores=True),
    keys=(
        ABSORBED,
        OwnKeys(_write_mlp, _read_mlp, plain=lambda stated: bool(stated.get(COUNT))),
        SIGMOID_ROUTING,
        OwnKeys(lambda _: [], _read_scores),
        GROUPS,
    ),
    obstacle=_obstacle,
)
