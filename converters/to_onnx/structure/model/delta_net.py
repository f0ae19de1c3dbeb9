"""The gated delta net as terms."""

from __future__ import annotations

from collections.abc import Mapping

from converters.to_onnx.structure.model.short_conv import convolution
from converters.to_onnx.structure.model.wanted import Wanted, name_of, place_of
from converters.to_onnx.structure.terms import (
    ACTIVATION,
    MASKED,
    NORM,
    PART,
    PRODUCT,
    RECURRENCE,
    RECURRENT,
    SCALED,
    Term,
)
from ropeconv.arch.blocks.delta_net import GatedDeltaNet
from ropeconv.arch.stack import Layer

EPSILON = 1e-6


def delta_net(wanted: Wanted, n: int, layer: Layer, x: Term) -> tuple[Term, Mapping[str, Term]]:
    """(what the layer adds to the stream, what it hands on: output -> term)."""
    terms, block = wanted.terms, layer.mixer
    assert isinstance(block, GatedDeltaNet)
    x = terms.make(MASKED, {"x": x}, where=place_of(n, "padding"))
    rows = block.projections
    qkv, z, b = (wanted.linear(x, each, n) for each in (rows.qkv, rows.z, rows.b))
    y, handed = convolution(wanted, n, block, qkv)
    y = terms.make(ACTIVATION, {"x": y}, form="silu", where=place_of(n, "activation"))
    q, k, v = _parts(wanted, n, block, y)
    q, k = (_unit(wanted, n, block, each) for each in (q, k))
    scale = float(block.key_dim) ** -0.5
    k = terms.make(SCALED, {"x": k}, by=scale, where=place_of(n, "length of k"))
    inputs = {
        "q": q,
        "k": k,
        "v": v,
        "past": terms.make("input", name=f"past_recurrent.{n}"),
        "decay": _decay(wanted, n, block, x),
        "share": terms.operator("Sigmoid", b),
    }
    fields = {
        "rule": "gated_delta",
        "q_num_heads": block.key_heads,
        "kv_num_heads": block.value_heads,
        "scale": 1.0 / block.key_dim,
    }
    y = terms.make(RECURRENCE, inputs, **fields, where=place_of(n, "state"))
    name = f"present_recurrent.{n}"
    handed = {**handed, name: terms.make(RECURRENT, {"of": y}, where=name)}
    y = wanted.norm(y, block.norm, n, size=block.value_dim)
    gate = terms.make(ACTIVATION, {"x": z}, form="silu", where=place_of(n, "gate"))
    y = terms.times(y, gate, where=place_of(n, "gate behind the state"))
    return wanted.linear(y, block.output, n), handed


def _parts(wanted: Wanted, n: int, block: GatedDeltaNet, y: Term) -> list[Term]:
    keys, values = block.key_heads * block.key_dim, block.value_heads * block.value_dim
    return [
        wanted.terms.make(
            PART, {"x": y}, first=start, last=start + size - 1, where=place_of(n, f"{part} of it")
        )
        for part, start, size in (("q", 0, keys), ("k", keys, keys), ("v", 2 * keys, values))
    ]


def _unit(wanted: Wanted, n: int, block: GatedDeltaNet, y: Term) -> Term:
    """By the length of each head, times the root of its size."""
    size = block.key_dim
    where = place_of(n, "length of q or k")
    return wanted.terms.make(
        NORM, {"x": y}, form="rms", size=size, epsilon=EPSILON / size, where=where
    )


def _decay(wanted: Wanted, n: int, block: GatedDeltaNet, x: Term) -> Term:
    terms = wanted.terms
    name, own = name_of(block.projections.a.weight, n), name_of(block.dt, n)
    a = terms.make(PRODUCT, {"x": x}, weight=name, bias=own, where=name)
    rate = terms.operator("Exp", terms.make("weight", name=name_of(block.decay, n)))
    return terms.operator("Neg", terms.times(terms.operator("Softplus", a), rate))
