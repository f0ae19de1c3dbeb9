"""Keys that several loaders read, as values that an architecture lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import OwnKeys, Stated
from converters.to_gguf.file.keys import KeyValue, booleans, float32, uint32
from converters.to_gguf.rope.settings import sliding_layers
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.layers import FULL, SLIDING
from ropeconv.errors import CheckpointError
from ropeconv.model import Model


def _write_windows(model: Model) -> list[KeyValue]:
    window = model.stack.window
    if window is None:
        return []
    windowed = [kind == SLIDING for kind in model.stack.kinds]
    return [
        uint32("attention.sliding_window", window),
        booleans("attention.sliding_window_pattern", windowed),
    ]


def _window(stated: Stated) -> Mapping[str, Any]:
    return {"sliding_window": stated.get("attention.sliding_window") or None}


def _window_layers(stated: Stated) -> Mapping[str, Any]:
    windowed = sliding_layers(stated.metadata)
    return {"layer_types": [SLIDING if flag else FULL for flag in windowed]}


WINDOWS = OwnKeys(_write_windows, _window, _window_layers)
"""Layers with a window, one flag a layer."""


def _write_softcap(model: Model) -> list[KeyValue]:
    cap = model.stack.head.softcap
    return [float32("final_logit_softcapping", float(cap))] if cap else []


SOFTCAP = OwnKeys(
    _write_softcap,
    lambda stated: {"final_logit_softcap": stated.get("final_logit_softcapping")},
)
"""Logits that are capped."""


def _write_experts(model: Model) -> list[KeyValue]:
    mixtures = [x.mlp for x in model.stack.layers if isinstance(x.mlp, MixtureOfExperts)]
    if not mixtures:
        return []
    return [
        uint32("expert_count", mixtures[0].num_experts),
        uint32("expert_used_count", mixtures[0].routing.chosen),
        uint32("expert_feed_forward_length", mixtures[0].expert_size),
    ]


def _experts(stated: Stated) -> Mapping[str, Any]:
    counts = {key: stated.get(key) for key in ("expert_count", "expert_used_count")}
    for key, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise CheckpointError(
                f"the GGUF file has no usable {stated.arch.name}.{key}; convert it again"
            )
    used = counts["expert_used_count"]
    # the loader's own rule for files without the key
    width = stated.get("expert_feed_forward_length") or stated.get("feed_forward_length") // used
    return {
        "num_experts": counts["expert_count"],
        "experts_per_token": used,
        "expert_size": width,
    }


EXPERTS = OwnKeys(_write_experts, _experts)
"""How many experts, how many of them a token takes, how wide each is."""
