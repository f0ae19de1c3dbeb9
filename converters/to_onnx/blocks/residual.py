"""How mixer and MLP are joined to the residual stream x, and where the norms stand.

A norm that follows an addition is made together with it, where the profile can: each layer ends
with the norm that the next one begins with, or with the head's.
"""

from __future__ import annotations

from collections.abc import Callable

from converters.to_onnx.blocks import find
from converters.to_onnx.blocks.attention import ATTENTION
from converters.to_onnx.blocks.frame import Decoder
from converters.to_onnx.blocks.mixers.latent import LATENT
from converters.to_onnx.blocks.mlp import DENSE
from converters.to_onnx.blocks.moe import MIXTURES, add_experts, add_shared
from converters.to_onnx.blocks.states.delta_net import DELTA_NETS
from converters.to_onnx.blocks.states.mamba2 import add_mamba2
from converters.to_onnx.blocks.states.short_conv import CONVOLUTIONS
from converters.to_onnx.graph import Value
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.norm import Norm
from ropeconv.arch.blocks.residual import (
    Parallel,
    PostNorm,
    PreNorm,
    Sandwich,
    SandwichOfTwo,
    SharedParallel,
)
from ropeconv.arch.stack import Layer

Stream = tuple[Value, Value | None]
"""(x, the norm of x that the next block begins with, where it was made together with x)."""
Next = tuple[Norm | None, int | None]
"""(the norm that follows the layer, the layer whose norm it is; None: the head's)."""


def first_norm(layer: Layer) -> Norm | None:
    """The norm that a layer begins with, None where it begins with its mixer."""
    residual = layer.residual
    return None if isinstance(residual, PostNorm) else residual.mixer_norm


def _pre(
    decoder: Decoder, n: int, layer: Layer, x: Value, normed: Value | None, following: Next
) -> Stream:
    """x + scale * mixer(norm x), then x + scale * mlp(norm x)."""
    residual = layer.residual
    assert isinstance(residual, PreNorm)
    y = _mix(decoder, n, layer, _normed(decoder, n, residual.mixer_norm, x, normed))
    y = _scaled(decoder, n, y, residual.scale)
    x, inner = _add_norm(decoder, n, x, y, residual.mlp_norm)
    y = _scaled(decoder, n, _feed(decoder, n, layer, inner), residual.scale)
    return _add_next(decoder, n, x, y, following)


def _sandwich(
    decoder: Decoder, n: int, layer: Layer, x: Value, normed: Value | None, following: Next
) -> Stream:
    """x + scale * norm(mixer(norm x)), then x + scale * norm(mlp(norm x))."""
    residual = layer.residual
    assert isinstance(residual, Sandwich)
    y = _mix(decoder, n, layer, _normed(decoder, n, residual.mixer_norm, x, normed))
    y = _scaled(decoder, n, _post(decoder, n, residual.mixer_post_norm, y), residual.scale)
    x, inner = _add_norm(decoder, n, x, y, residual.mlp_norm)
    y = _post(decoder, n, residual.mlp_post_norm, _feed(decoder, n, layer, inner))
    return _add_next(decoder, n, x, _scaled(decoder, n, y, residual.scale), following)


def _sandwich_of_two(
    decoder: Decoder, n: int, layer: Layer, x: Value, normed: Value | None, following: Next
) -> Stream:
    """x + norm(mixer(norm x)), then what an MLP and experts give of x, each with norms."""
    residual, block = layer.residual, layer.mlp
    assert isinstance(residual, SandwichOfTwo)
    assert isinstance(block, MixtureOfExperts)
    assert block.shared is not None
    y = _mix(decoder, n, layer, _normed(decoder, n, residual.mixer_norm, x, normed))
    y = _post(decoder, n, residual.mixer_post_norm, y)
    x, inner = _add_norm(decoder, n, x, y, residual.mlp_norm)
    one = add_shared(decoder, n, block.shared, inner)
    one = _post(decoder, n, residual.shared_post_norm, one)
    inner = _post(decoder, n, residual.experts_norm, x)
    other = add_experts(decoder, n, block, inner, x)
    other = _post(decoder, n, residual.experts_post_norm, other)
    y = decoder.graph.op("Add", one, other, name=f"layer_{n}_both")
    return _add_next(decoder, n, x, _post(decoder, n, residual.mlp_post_norm, y), following)


def _post_norm(
    decoder: Decoder, n: int, layer: Layer, x: Value, _normed: Value | None, _following: Next
) -> Stream:
    """x + norm(mixer x), then x + norm(mlp x)."""
    residual = layer.residual
    assert isinstance(residual, PostNorm)
    y = _post(decoder, n, residual.mixer_post_norm, _mix(decoder, n, layer, x))
    x = decoder.graph.op("Add", x, y, name="residual")
    y = _post(decoder, n, residual.mlp_post_norm, _feed(decoder, n, layer, x))
    return decoder.graph.op("Add", x, y, name="residual"), None


def _parallel(
    decoder: Decoder, n: int, layer: Layer, x: Value, normed: Value | None, following: Next
) -> Stream:
    """x + mixer(norm x) + mlp(another norm of x)."""
    residual = layer.residual
    assert isinstance(residual, Parallel)
    name = f"layer_{n}_ffn_norm"
    inner = decoder.profile.norm(x, decoder.norm(residual.mlp_norm, n), name=name)
    y = _mix(decoder, n, layer, _normed(decoder, n, residual.mixer_norm, x, normed))
    z = _feed(decoder, n, layer, inner)
    return _add_next(decoder, n, x, decoder.graph.op("Add", y, z, name="parallel"), following)


def _shared_parallel(
    decoder: Decoder, n: int, layer: Layer, x: Value, normed: Value | None, following: Next
) -> Stream:
    """x + mixer(norm x) + mlp(the same norm of x)."""
    residual = layer.residual
    assert isinstance(residual, SharedParallel)
    inner = _normed(decoder, n, residual.mixer_norm, x, normed)
    y, z = _mix(decoder, n, layer, inner), _feed(decoder, n, layer, inner)
    return _add_next(decoder, n, x, decoder.graph.op("Add", y, z, name="parallel"), following)


MIXERS = {**ATTENTION, **LATENT, **CONVOLUTIONS, **DELTA_NETS}
MLPS = {**DENSE, **MIXTURES}
Add = Callable[[Decoder, int, Layer, Value, Value | None, Next], Stream]
RESIDUALS: dict[type, Add] = {
    PreNorm: _pre,
    Sandwich: _sandwich,
    SandwichOfTwo: _sandwich_of_two,
    PostNorm: _post_norm,
    Parallel: _parallel,
    SharedParallel: _shared_parallel,
}


def _mix(decoder: Decoder, n: int, layer: Layer, x: Value) -> Value:
    y = find(MIXERS, layer.mixer)(decoder, n, layer, x)
    beside = layer.mixer.beside if isinstance(layer.mixer, Attention) else None
    if beside is None:
        return y
    z = add_mamba2(decoder, n, beside, x)
    return decoder.graph.op("Add", z, y, name=f"layer_{n}_beside")


def _feed(decoder: Decoder, n: int, layer: Layer, x: Value) -> Value:
    return find(MLPS, layer.mlp)(decoder, n, layer.mlp, x)


def _normed(decoder: Decoder, n: int, norm: Norm, x: Value, normed: Value | None) -> Value:
    if normed is not None:
        return normed
    return decoder.profile.norm(x, decoder.norm(norm, n), name=f"layer_{n}_attn_norm")


def _scaled(decoder: Decoder, n: int, y: Value, scale: float) -> Value:
    return decoder.scaled(y, scale, constant="residual_scale", name=f"layer_{n}_scaled")


def _post(decoder: Decoder, n: int, norm: Norm, y: Value) -> Value:
    name = f"layer_{n}_{norm.role.value}"
    return decoder.profile.norm(y, decoder.norm(norm, n), name=name)


def _add_norm(decoder: Decoder, n: int, x: Value, y: Value, norm: Norm) -> tuple[Value, Value]:
    """(x + y, its norm), before the MLP."""
    values = decoder.norm(norm, n)
    return decoder.profile.add_norm(x, y, values, name=f"layer_{n}_ffn_norm")


def _add_next(decoder: Decoder, n: int, x: Value, y: Value, following: Next) -> Stream:
    norm, owner = following
    if norm is None:
        return decoder.graph.op("Add", x, y, name="residual"), None
    values = decoder.norm(norm, owner)
    return decoder.profile.add_norm(x, y, values, name=f"layer_{n}_next_norm")
