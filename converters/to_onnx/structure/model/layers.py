"""How a layer's parts are joined to the residual stream, as terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from converters.to_onnx.blocks import find
from converters.to_onnx.structure.model.attention import attention
from converters.to_onnx.structure.model.delta_net import delta_net
from converters.to_onnx.structure.model.inputs import with_input
from converters.to_onnx.structure.model.latent import latent_attention
from converters.to_onnx.structure.model.mamba2 import mamba2
from converters.to_onnx.structure.model.mlp import FEEDS, experts_alone, shared_alone
from converters.to_onnx.structure.model.short_conv import short_conv
from converters.to_onnx.structure.model.wanted import Wanted, name_of, place_of
from converters.to_onnx.structure.terms import BY_WEIGHT, Term
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.mla import LatentAttention
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
from ropeconv.arch.blocks.states.delta_net import GatedDeltaNet
from ropeconv.arch.blocks.states.short_conv import ShortConv
from ropeconv.arch.stack import Layer

Step = Callable[[Term], Term]


Handed = Mapping[str, Term]
"""What a layer hands on to the next call: output -> term."""
MIXERS: dict[type, Callable[[Wanted, int, Layer, Term], tuple[Term, Handed]]] = {
    Attention: attention,
    LatentAttention: latent_attention,
    ShortConv: short_conv,
    GatedDeltaNet: delta_net,
}


def layer_terms(
    wanted: Wanted, n: int, layer: Layer, x: Term, given: Term | None
) -> tuple[Handed, Term]:
    """(what the layer hands on, the residual stream after it). given: its own input, if any."""
    handed: dict[str, Term] = {}

    def mix(y: Term) -> Term:
        term, own = find(MIXERS, layer.mixer)(wanted, n, layer, y)
        handed.update(own)
        if isinstance(layer.mixer, Attention) and layer.mixer.beside is not None:
            beside, own = mamba2(wanted, n, layer.mixer.beside, y)
            handed.update(own)
            term = wanted.terms.add(beside, term, where=place_of(n, "attention and what is beside"))
        return term

    def feed(y: Term) -> Term:
        return find(FEEDS, layer.mlp)(wanted, n, layer.mlp, y)

    residual = layer.residual
    if isinstance(residual, SandwichOfTwo):
        after = _of_two(wanted, n, layer, residual, x, mix)
    else:
        after = find(RESIDUALS, residual)(wanted, n, residual, x, mix, feed)
    if layer.input is not None and given is not None:
        after = with_input(wanted, n, layer.input, after, given)
    if layer.scale is not None:
        name = name_of(layer.scale, n)
        fields: dict[str, Any] = {"weight": name, "of": layer.scale.shape}
        after = wanted.terms.make(BY_WEIGHT, {"x": after}, where=name, **fields)
    return handed, after


def _norm(wanted: Wanted, n: int, norm: Norm, x: Term) -> Term:
    return wanted.norm(x, norm, n, size=wanted.hidden)


def _stream(wanted: Wanted, n: int, x: Term, *terms: Term, scale: float = 1.0) -> Term:
    """x plus what is made of it."""
    where = place_of(n, "residual scale")
    parts = [wanted.scaled(term, scale, where=where) for term in terms]
    return wanted.terms.add(x, *parts, where=place_of(n, "residual stream"))


def _pre(wanted: Wanted, n: int, residual: PreNorm, x: Term, mix: Step, feed: Step) -> Term:
    for norm, step in ((residual.mixer_norm, mix), (residual.mlp_norm, feed)):
        x = _stream(wanted, n, x, step(_norm(wanted, n, norm, x)), scale=residual.scale)
    return x


def _post(wanted: Wanted, n: int, residual: PostNorm, x: Term, mix: Step, feed: Step) -> Term:
    for norm, step in ((residual.mixer_post_norm, mix), (residual.mlp_post_norm, feed)):
        x = _stream(wanted, n, x, _norm(wanted, n, norm, step(x)))
    return x


def _sandwich(wanted: Wanted, n: int, residual: Sandwich, x: Term, mix: Step, feed: Step) -> Term:
    halves = (
        (residual.mixer_norm, mix, residual.mixer_post_norm),
        (residual.mlp_norm, feed, residual.mlp_post_norm),
    )
    for before, step, after in halves:
        y = _norm(wanted, n, after, step(_norm(wanted, n, before, x)))
        x = _stream(wanted, n, x, y, scale=residual.scale)
    return x


def _of_two(
    wanted: Wanted, n: int, layer: Layer, residual: SandwichOfTwo, x: Term, mix: Step
) -> Term:
    """What an MLP and experts give of the stream, each with norms of its own."""
    block = layer.mlp
    assert isinstance(block, MixtureOfExperts)
    assert block.shared is not None
    y = mix(_norm(wanted, n, residual.mixer_norm, x))
    x = _stream(wanted, n, x, _norm(wanted, n, residual.mixer_post_norm, y))
    one = shared_alone(wanted, n, block.shared, _norm(wanted, n, residual.mlp_norm, x))
    other = experts_alone(wanted, n, block, _norm(wanted, n, residual.experts_norm, x), x)
    one = _norm(wanted, n, residual.shared_post_norm, one)
    other = _norm(wanted, n, residual.experts_post_norm, other)
    both = wanted.terms.add(one, other)
    return _stream(wanted, n, x, _norm(wanted, n, residual.mlp_post_norm, both))


def _parallel(wanted: Wanted, n: int, residual: Parallel, x: Term, mix: Step, feed: Step) -> Term:
    y = mix(_norm(wanted, n, residual.mixer_norm, x))
    return _stream(wanted, n, x, y, feed(_norm(wanted, n, residual.mlp_norm, x)))


def _shared_parallel(
    wanted: Wanted, n: int, residual: SharedParallel, x: Term, mix: Step, feed: Step
) -> Term:
    y = _norm(wanted, n, residual.mixer_norm, x)
    return _stream(wanted, n, x, mix(y), feed(y))


RESIDUALS: dict[type, Callable[[Wanted, int, Any, Term, Step, Step], Term]] = {
    PreNorm: _pre,
    PostNorm: _post,
    Sandwich: _sandwich,
    Parallel: _parallel,
    SharedParallel: _shared_parallel,
}
