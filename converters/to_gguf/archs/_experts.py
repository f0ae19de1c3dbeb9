"""Keys of mixtures of experts, and what llama.cpp's graphs fix that no key says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from converters.to_gguf.archs._arch import OwnKeys, Stated
from converters.to_gguf.file.keys import KeyValue, boolean, float32, uint32
from converters.to_gguf.rope.rope_parameters import shortest
from ropeconv.arch.blocks.moe import MixtureOfExperts, Scores
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.stack import Stack
from ropeconv.errors import CheckpointError
from ropeconv.model import Model

ELSEWHERE = "take `ropeconv onnx` or `ropeconv safetensors`"
# expert_gating_func
GATING = {Scores.SOFTMAX: 1, Scores.SIGMOID: 2}
COUNT, USED, WIDTH = "expert_count", "expert_used_count", "expert_feed_forward_length"
SHARED_WIDTH, SHARED_COUNT = "expert_shared_feed_forward_length", "expert_shared_count"
SCALE, NORM, FUNCTION = "expert_weights_scale", "expert_weights_norm", "expert_gating_func"
LEADING = "leading_dense_block_count"
GROUP_COUNT, GROUPS_USED = "expert_group_count", "expert_group_used_count"
BEST_OF_GROUP = 2  # whose sum ranks a group, in build_moe_ffn of src/llama-graph.cpp
# what DeepSeek-V3's routing computes beyond a softmax
SIGMOID_TRAITS = frozenset(
    {
        Trait.SIGMOID_ROUTING,
        Trait.ROUTER_BIAS,
        Trait.ROUTED_SCALE,
        Trait.SHARED_EXPERT,
        Trait.EXPERT_GROUPS,
    }
)


def mixtures(stack: Stack) -> dict[int, MixtureOfExperts]:
    """Layer -> its mixture, of those that have one."""
    mlps = ((number, layer.mlp) for number, layer in enumerate(stack.layers))
    return {number: mlp for number, mlp in mlps if isinstance(mlp, MixtureOfExperts)}


def _first(model: Model) -> MixtureOfExperts | None:
    return next(iter(mixtures(model.stack).values()), None)


def _counts(block: MixtureOfExperts) -> list[KeyValue]:
    return [uint32(COUNT, block.num_experts), uint32(USED, block.routing.chosen)]


def _write_experts(model: Model) -> list[KeyValue]:
    block = _first(model)
    return [] if block is None else [*_counts(block), uint32(WIDTH, block.expert_size)]


def _read_counts(stated: Stated) -> dict[str, int]:
    counts = {key: stated.get(key) for key in (COUNT, USED)}
    for key, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise CheckpointError(
                f"the GGUF file has no usable {stated.arch.name}.{key}; convert it again"
            )
    return {"num_experts": counts[COUNT], "experts_per_token": counts[USED]}


def _read_experts(stated: Stated) -> Mapping[str, Any]:
    found = _read_counts(stated)
    # the loader's own rule for files without the key
    width = stated.get(WIDTH) or stated.get("feed_forward_length") // found["experts_per_token"]
    return found | {"expert_size": width}


EXPERTS = OwnKeys(_write_experts, _read_experts)
"""How many experts, how many of them a token takes, how wide each is."""


def _write_wide(model: Model) -> list[KeyValue]:
    block = _first(model)
    return [] if block is None else _counts(block)


WIDE_EXPERTS = OwnKeys(
    _write_wide,
    lambda stated: (
        _read_counts(stated) | {"expert_size": stated.get("feed_forward_length")}
        if stated.get(COUNT)
        else {}
    ),
)
"""The same where experts are as wide as feed_forward_length says, or there are none."""


def write_shared(model: Model) -> list[KeyValue]:
    """How wide the shared expert is."""
    block = _first(model)
    if block is None or block.shared is None:
        return []
    return [uint32(SHARED_WIDTH, block.shared.mlp.up.weight.shape[0])]


def shared(read: Callable[[int, Stated], Mapping[str, Any]]) -> OwnKeys:
    """How wide the shared expert is. read: (the width, the file) -> a family's sizes of it."""
    return OwnKeys(
        write_shared,
        lambda stated: read(stated.get(SHARED_WIDTH) or 0, stated),
        plain=lambda stated: not stated.get(SHARED_WIDTH),
    )


def write_routing(model: Model) -> list[KeyValue]:
    """How a token's experts are weighed."""
    block = _first(model)
    if block is None:
        return []
    routing = block.routing
    scale = [] if routing.scale == 1.0 else [float32(SCALE, routing.scale)]
    return [
        *scale,
        boolean(NORM, routing.normed),
        uint32(FUNCTION, GATING[routing.scores]),
    ]


def read_weights(stated: Stated) -> dict[str, Any]:
    """What a token's experts are weighed by, by the names of sizes."""
    return {
        "routed_scale": shortest(stated.get(SCALE) or 1.0),  # the loader takes 0 for none
        "normed_weights": bool(stated.get(NORM, False)),
    }


SIGMOID_ROUTING = OwnKeys(write_routing, read_weights, plain=lambda _: True)
"""What a token's experts are weighed by."""


def _write_leading(model: Model) -> list[KeyValue]:
    layers = len(model.stack.layers)
    return [uint32(LEADING, min(mixtures(model.stack), default=layers))]


LEADING_DENSE = OwnKeys(
    _write_leading,
    lambda stated: {"dense_layers": stated.get(LEADING) or 0},
)
"""How many layers before the first with experts."""


def _write_shared_count(model: Model) -> list[KeyValue]:
    block = _first(model)
    if block is None or block.shared is None:
        return []
    return [uint32(SHARED_COUNT, block.shared.mlp.up.weight.shape[0] // block.expert_size)]


SHARED_EXPERTS = OwnKeys(
    _write_shared_count, lambda stated: {"num_shared": stated.get(SHARED_COUNT) or 0}
)
"""How many experts' widths the shared one has."""


def _write_groups(model: Model) -> list[KeyValue]:
    block = _first(model)
    groups = None if block is None else block.routing.groups
    if groups is None:
        return []
    return [uint32(GROUP_COUNT, groups.count), uint32(GROUPS_USED, groups.chosen)]


def _read_groups(stated: Stated) -> dict[str, int]:
    count = stated.get(GROUP_COUNT) or 1
    return {"groups": count, "groups_chosen": count if count == 1 else stated.get(GROUPS_USED) or 0}


GROUPS = OwnKeys(
    _write_groups, _read_groups, plain=lambda stated: (stated.get(GROUP_COUNT) or 1) == 1
)
"""Into how many groups experts fall, and how many of these are chosen first."""


def dense_behind(arch: str, model: Model) -> str | None:
    """Why a graph whose dense layers all come first does not run the model."""
    found = mixtures(model.stack)
    first = min(found, default=0)
    dense = [n for n in range(first, len(model.stack.layers)) if n not in found]
    if not found or not dense:
        return None
    return (
        f"llama.cpp's {arch} has its dense layers first, and config.json keeps a dense MLP in "
        f"layer {dense[0]} behind experts; {ELSEWHERE}"
    )


def dense_among(arch: str, model: Model) -> str | None:
    """Why a graph with experts in every layer does not run the model."""
    found = mixtures(model.stack)
    dense = [n for n in range(len(model.stack.layers)) if n not in found]
    if not dense:
        return None
    return (
        f"llama.cpp's {arch} has experts in every layer, and config.json keeps a dense MLP in "
        f"layer {dense[0]}; {ELSEWHERE}"
    )


def normed(arch: str, model: Model, *, wanted: bool) -> str | None:
    """Why a graph that fixes whether a token's weights add up to 1 does not run the model."""
    if all(block.routing.normed is wanted for block in mixtures(model.stack).values()):
        return None
    does = "makes" if wanted else "does not make"
    return (
        f"llama.cpp's {arch} {does} the weights of a token's experts add up to 1, and config.json "
        f"says norm_topk_prob {str(not wanted).lower()}; {ELSEWHERE}"
    )


def unscaled(stated: Stated) -> dict[str, Any]:
    """Nothing; CheckpointError for a file whose scale no config of its families can say."""
    scale = stated.get(SCALE, 0.0)
    if scale not in (0.0, 1.0):
        raise CheckpointError(
            f"the GGUF file has {stated.arch.name}.{SCALE} {scale:g}, by which no config.json of "
            f"the family can multiply; convert the original checkpoint"
        )
    return {}


def refuse_other_scores(stated: Stated, stack: Stack) -> None:
    """CheckpointError where the file's experts are scored as no model of its family scores them."""
    said = stated.get(FUNCTION)
    for block in mixtures(stack).values():
        own = GATING[block.routing.scores]
        if said not in (None, 0, own):
            raise CheckpointError(
                f"{stated.arch.name}.{FUNCTION} is {said}, and models of its family have {own} "
                f"({block.routing.scores.value}); convert the original checkpoint"
            )
        _refuse_other_groups(stated, block)


def _refuse_other_groups(stated: Stated, block: MixtureOfExperts) -> None:
    """Every loader reads their keys, and every graph goes by them."""
    own = block.routing.groups
    plain = own is not None and own.best == BEST_OF_GROUP
    wanted = (own.count, own.chosen) if own is not None and plain else None
    count = stated.get(GROUP_COUNT) or 0
    found = (count, stated.get(GROUPS_USED)) if count > 1 else None
    if found != wanted:
        raise CheckpointError(
            f"{stated.arch.name}.{GROUP_COUNT} is {count}, and models of its family choose experts "
            f"by other groups, or by none; convert the original checkpoint"
        )
