"""Keys that several loaders read, as values that an architecture lists."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from converters.to_gguf.archs._arch import OwnKeys, Stated
from converters.to_gguf.file.keys import KeyValue, booleans, float32, uint32
from converters.to_gguf.rope.rope_parameters import shortest
from converters.to_gguf.rope.settings import sliding_layers
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.layers import SLIDING
from ropeconv.arch.stack import Stack
from ropeconv.model import Model


def shown(sizes: Callable[[Stated], Mapping[str, Any]]) -> OwnKeys:
    """What a file's tensors show, and no key says."""
    return OwnKeys(lambda _: [], sizes, plain=lambda _: True)


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


WINDOWS = OwnKeys(_write_windows, _window)
"""Layers with a window, one flag a layer."""


def windows_always(spare_layers: Callable[[Stack], int]) -> OwnKeys:
    """As WINDOWS, for loaders that must have one; a model without gives it to the spare layers."""

    def write(model: Model) -> list[KeyValue]:
        stack = model.stack
        windowed = [kind == SLIDING for kind in stack.kinds] + [True] * spare_layers(stack)
        return [
            uint32("attention.sliding_window", stack.window or 1),
            booleans("attention.sliding_window_pattern", windowed),
        ]

    def read(stated: Stated) -> Mapping[str, Any]:
        windowed = any(sliding_layers(stated.metadata))
        return {"sliding_window": stated.get("attention.sliding_window") if windowed else None}

    return OwnKeys(write, read)


NO_CAP = 1e6
"""A cap so high that numbers pass as they are: for loaders that always cap."""


def softcap(
    key: str, size: str, cap: Callable[[Model], float | None], *, assumed: float | None = None
) -> OwnKeys:
    """Numbers that are capped, None = they are not.

    assumed: what the loader takes without the key, where its graph always caps.
    """

    def write(model: Model) -> list[KeyValue]:
        wanted = cap(model) or (NO_CAP if assumed else None)
        return [float32(key, float(wanted))] if wanted else []

    def sizes(stated: Stated) -> Mapping[str, Any]:
        found = stated.get(key, assumed)
        return {size: None if assumed and found == NO_CAP else found}

    return OwnKeys(write, sizes)


def _logit_cap(model: Model) -> float | None:
    return model.stack.head.softcap


def _plain_attention(model: Model) -> Attention:
    block = model.stack.attention
    assert isinstance(block, Attention)
    return block


def _score_cap(model: Model) -> float | None:
    return _plain_attention(model).softcap


SOFTCAP = softcap("final_logit_softcapping", "final_logit_softcap", _logit_cap)
"""Logits that are capped."""
SOFTCAPS_ALWAYS = (
    softcap("attn_logit_softcapping", "attn_logit_softcap", _score_cap, assumed=50.0),
    softcap("final_logit_softcapping", "final_logit_softcap", _logit_cap, assumed=30.0),
)
"""Scores and logits of a graph that caps both, whatever the file says."""


def scale(
    key: str,
    found: Callable[[Model], float],
    *sizes: str,
    neutral: Callable[[Stated], float] = lambda _: 1.0,
    required: bool = False,
    inverse: str | None = None,
) -> OwnKeys:
    """A number by which something is multiplied, under the names of `sizes` in families' configs.

    found: what the key is in a model. neutral: what acts where the key is absent or 0, which
    loaders take for "none". required: it is written where it is neutral too. inverse: a further
    name, of families that multiply where the key divides, or the other way round.
    """

    def write(model: Model) -> list[KeyValue]:
        value = found(model)
        plain = not required and math.isclose(value, _unstated(model), rel_tol=1e-12)
        return [] if plain else [float32(key, value)]

    def _unstated(model: Model) -> float:
        return float(model.stack.attention.head_dim**-0.5) if neutral is _by_head_dim else 1.0

    def read(stated: Stated) -> Mapping[str, Any]:
        value = shortest(stated.get(key) or neutral(stated))
        other = {} if inverse is None else {inverse: shortest(1.0 / value)}
        return dict.fromkeys(sizes, value) | other

    def plain(stated: Stated) -> bool:
        return math.isclose(stated.get(key) or neutral(stated), neutral(stated), rel_tol=1e-6)

    def cannot(model: Model) -> str | None:
        zero = "takes it for none; take `ropeconv onnx` or `ropeconv safetensors`"
        return None if found(model) else f"llama.cpp's {key} cannot be 0: it {zero}"

    return OwnKeys(write, read, plain, cannot)


def _by_head_dim(stated: Stated) -> float:
    """What graphs multiply scores by of their own accord."""
    width = stated.get("embedding_length") // stated.get("attention.head_count")
    return float(stated.get("attention.key_length", width) ** -0.5)


def _residual_scale(model: Model) -> float:
    return float(getattr(model.stack.layers[0].residual, "scale", 1.0))


EMBEDDING_SCALE = scale(
    "embedding_scale", lambda model: model.stack.embedding.scale, "embedding_multiplier"
)
"""The token embedding is multiplied."""
RESIDUAL_SCALE = scale("residual_scale", _residual_scale, "residual_multiplier")
"""What is added to the residual stream is multiplied."""
ATTENTION_SCALE = scale(
    "attention.scale",
    lambda model: model.stack.attention.scale,
    "attention_multiplier",
    neutral=_by_head_dim,
)
"""Scores are multiplied, in place of head_dim ** -0.5."""
LOGITS_MULTIPLIED = scale("logit_scale", lambda model: model.stack.head.scale, "logit_scale")
"""Logits are multiplied (command-r, cohere2)."""
LOGITS_DIVIDED = scale(
    "logit_scale",
    lambda model: 1.0 / model.stack.head.scale,
    "logits_scaling",
    required=True,
    inverse="logits_multiplier",
)
"""Logits are divided (granite and its kin)."""


def _write_clamp(model: Model) -> list[KeyValue]:
    clamp = _plain_attention(model).clamp
    return [] if clamp is None else [float32("attention.clamp_kqv", float(clamp))]


CLAMP = OwnKeys(
    _write_clamp, lambda stated: {"clip_qkv": stated.get("attention.clamp_kqv") or None}
)
"""q, k and v are held within a bound."""


def _write_temperature(model: Model) -> list[KeyValue]:
    temperature = model.stack.attention.temperature
    return [] if temperature is None else [float32("attention.temperature_scale", temperature.beta)]


def _temperature_length(model: Model) -> str | None:
    temperature, rope = model.stack.attention.temperature, model.main_rope
    if temperature is None or temperature.length == rope.original_context:
        return None
    return (
        f"llama.cpp scales queries by steps of the trained context, {rope.original_context} "
        f"tokens, and config.json says steps of {temperature.length}"
    )


TEMPERATURE = OwnKeys(
    _write_temperature,
    lambda stated: {
        "temperature_beta": stated.get("attention.temperature_scale") or None,
        # src/models/mistral3.cpp: of the context where the file does not say the trained one
        "temperature_length": stated.get(
            "rope.scaling.original_context_length", stated.get("context_length")
        ),
    },
    plain=lambda stated: not stated.get("attention.temperature_scale"),
    cannot=_temperature_length,
)
"""Queries are scaled by their position."""
