"""Why an architecture of llama.cpp cannot run a model, whatever its rotary embedding."""

from __future__ import annotations

from collections.abc import Iterable

from converters.to_gguf.archs._arch import Arch
from ropeconv.arch.blocks import describe
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.layers import NO_ROPE
from ropeconv.model import Model
from ropeconv.rope.solve import is_scaled
from ropeconv.rope.spec import Rope


def obstacle(model: Model, arch: Arch) -> str | None:
    """One line, or None where its graph computes the model."""
    return (
        _window(model, arch)
        or _still_layers(model, arch)
        or _shape(model, arch)
        or _biases(model, arch)
        or arch.obstacle(model)
        or next(filter(None, (keys.cannot(model) for keys in arch.keys)), None)
        or _blocks(model, arch)
        or _traits(model, arch)
    )


def _window(model: Model, arch: Arch) -> str | None:
    window, rope = model.stack.window, model.main_rope
    if window is None or arch.has_windows or window >= rope.context:
        return None
    return (
        f"llama.cpp's {arch.name} ignores the sliding window of {window} tokens: past it the file "
        f"would attend to tokens that the model does not see; {_within_window(rope, window)}"
    )


def _within_window(rope: Rope, window: int) -> str:
    """The advice that helps: within the window the file is exact."""
    elsewhere = "take `ropeconv onnx` or `ropeconv safetensors`, which keep the window"
    if is_scaled(rope) and rope.original_context >= window:
        return elsewhere
    return f"give --context {window} or less, or {elsewhere}"


def _still_layers(model: Model, arch: Arch) -> str | None:
    """Layers that do not rotate, where the graph decides which those are."""
    loader, kinds = arch.loader, model.stack.kinds
    if loader.rope_pattern:
        return None
    step = loader.still_every
    still = [bool(step) and (number + 1) % step == 0 for number in range(len(kinds))]
    wrong = [number for number, kind in enumerate(kinds) if (kind == NO_ROPE) != still[number]]
    if not wrong:
        return None
    every = f"every layer but each {step}th" if step else "every layer"
    return f"llama.cpp's {arch.name} rotates {every}, and in this model layer {wrong[0]} differs"


def _shape(model: Model, arch: Arch) -> str | None:
    attention = model.stack.attention
    if arch.square and attention.num_heads * attention.head_dim != model.stack.hidden_size:
        return (
            f"llama.cpp's {arch.name} takes head_dim = hidden_size / heads only, "
            f"this model has {attention.head_dim}"
        )
    if arch.tied and not model.stack.tied:
        return f"llama.cpp's {arch.name} has no output matrix beside the token embedding"
    return None


def _biases(model: Model, arch: Arch) -> str | None:
    biased = {place.weight.role for place in model.weights.values() if place.weight.part == "bias"}
    if biased - arch.biases:
        roles = _names(biased - arch.biases)
        return f"llama.cpp's {arch.name} has no place for a bias on {roles}"
    if arch.needs_bias - biased:
        roles = _names(arch.needs_bias - biased)
        return f"llama.cpp's {arch.name} does not load without a bias on {roles}"
    return None


def _names(roles: Iterable[Role]) -> str:
    return ", ".join(sorted(role.value for role in roles))


def _blocks(model: Model, arch: Arch) -> str | None:
    missing = next((kind for kind in model.stack.block_types() if kind not in arch.runs), None)
    return None if missing is None else f"llama.cpp's {arch.name} has no {describe(missing)}"


def _traits(model: Model, arch: Arch) -> str | None:
    for trait in sorted(model.stack.traits - arch.traits, key=lambda trait: trait.value):
        return f"llama.cpp's {arch.name} has no place for {trait.value}"
    for activation in sorted(model.stack.activations - set(arch.activations)):
        return f"llama.cpp's {arch.name} does not compute the activation {activation}"
    return None
