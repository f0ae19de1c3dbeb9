"""The gated delta net as terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from converters.to_onnx.blocks import find
from converters.to_onnx.structure.model.short_conv import convolution
from converters.to_onnx.structure.model.wanted import Wanted, name_of, place_of
from converters.to_onnx.structure.terms import (
    ACTIVATION,
    BEHIND,
    MASKED,
    NORM,
    PART,
    PLUS_WEIGHT,
    PRODUCT,
    RECURRENCE,
    RECURRENT,
    SCALED,
    Term,
)
from ropeconv.arch.blocks.states.delta_net import Apart, ByHead, GatedDeltaNet
from ropeconv.arch.blocks.states.mamba2 import Mamba2
from ropeconv.arch.stack import Layer

EPSILON = 1e-6


def delta_net(wanted: Wanted, n: int, layer: Layer, x: Term) -> tuple[Term, Mapping[str, Term]]:
    """(what the layer adds to the stream, what it hands on: output -> term)."""
    terms, block = wanted.terms, layer.mixer
    assert isinstance(block, GatedDeltaNet)
    x = terms.make(MASKED, {"x": x}, where=place_of(n, "padding"))
    qkv, z, b, a = find(PROJECTIONS, block.projections)(wanted, n, block, x)
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
        "decay": fading(wanted, n, block, terms.operator("Softplus", a)),
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


def fading(wanted: Wanted, n: int, block: GatedDeltaNet | Mamba2, step: Term) -> Term:
    """The log of what a step leaves of the state."""
    terms = wanted.terms
    rate = terms.operator("Exp", terms.make("weight", name=name_of(block.decay, n)))
    return terms.operator("Neg", terms.times(step, rate))


def _apart(wanted: Wanted, n: int, block: GatedDeltaNet, x: Term) -> list[Term]:
    """qkv, z, b, and a with the time step on it."""
    rows = block.projections
    assert isinstance(rows, Apart)
    wide = [wanted.linear(x, each, n) for each in (rows.qkv, rows.z, rows.b)]
    name, own = name_of(rows.a.weight, n), name_of(block.dt, n)
    return [*wide, wanted.terms.make(PRODUCT, {"x": x}, weight=name, bias=own, where=name)]


def _by_head(wanted: Wanted, n: int, block: GatedDeltaNet, x: Term) -> list[Term]:
    """The same of rows that come key head by key head."""
    rows, terms = block.projections, wanted.terms
    assert isinstance(rows, ByHead)
    *qkv, z = _of_heads(wanted, n, wanted.linear(x, rows.qkvz, n), "qkvz", block.of_each_head)
    each = block.value_heads // block.key_heads
    b, a = _of_heads(wanted, n, wanted.linear(x, rows.ba, n), "ba", (each, each))
    inputs = {str(place): part for place, part in enumerate(qkv)}
    behind = terms.make(BEHIND, inputs, where=place_of(n, "q, k and v"))
    return [behind, z, b, with_bias(wanted, n, block, a)]


def with_bias(wanted: Wanted, n: int, block: GatedDeltaNet | Mamba2, a: Term) -> Term:
    """What a time step is made of, with its bias on it."""
    own: dict[str, Any] = {"weight": name_of(block.dt, n), "of": block.dt.shape}
    return wanted.terms.make(PLUS_WEIGHT, {"x": a}, where=own["weight"], **own)


def _of_heads(wanted: Wanted, n: int, rows: Term, parts: str, sizes: tuple[int, ...]) -> list[Term]:
    """Each part, of which every key head has so many values."""
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    return [
        wanted.terms.make(
            PART,
            {"x": rows},
            first=start,
            last=start + size - 1,
            of_each=sum(sizes),
            where=place_of(n, f"{part} of every key head"),
        )
        for part, start, size in zip(parts, starts, sizes, strict=True)
    ]


PROJECTIONS: dict[type, Callable[[Wanted, int, GatedDeltaNet, Term], list[Term]]] = {
    Apart: _apart,
    ByHead: _by_head,
}
