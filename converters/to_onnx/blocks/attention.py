"""Softmax attention: projections, clamps, norms, rotation, temperature, attention, output."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from converters.to_onnx.blocks import find
from converters.to_onnx.blocks.frame import B, Decoder, P, T, name_of
from converters.to_onnx.blocks.heads import Part, clamped, normed, whole
from converters.to_onnx.graph import Value
from converters.to_onnx.profiles._shared import Heads, Keys, Told
from ropeconv.arch.blocks.attention import (
    Attention,
    Fused,
    KeysAsValues,
    Order,
    Queries,
    Separate,
    Temperature,
)
from ropeconv.arch.blocks.norm import Norm
from ropeconv.arch.stack import Layer
from ropeconv.errors import CannotExpress


def add_attention(decoder: Decoder, n: int, layer: Layer, x: Value) -> Value:
    """(..., e) of the normed x (..., e)."""
    block = layer.mixer
    assert isinstance(block, Attention)
    _check(block)
    late = block.norms_after_rotation
    norms = (block.q_norm, block.k_norm, block.v_norm)
    parts, gate = _parts(decoder, n, block, x)
    turned = [
        _turned(decoder, layer.kind, block, part, norm, late=late)
        for part, norm in zip(parts, norms, strict=False)
    ]
    query = _tempered(decoder, n, block.temperature, turned[0].value)
    told = Told(
        block.num_heads,
        block.num_kv_heads,
        block.head_dim,
        block.scale,
        block.window,
        block.softcap,
    )
    keys, present = _keys(decoder, n, told, turned[1:])
    sinks = None if block.sinks is None else decoder.store.vector(name_of(block.sinks, n))
    y = decoder.profile.attend(Heads(n, told, query, keys.k, keys.v, keys.past, present, sinks))
    if gate is not None:
        share = decoder.graph.op("Sigmoid", gate, name=f"layer_{n}_gate_share")
        y = decoder.graph.op("Mul", y, share, name=f"layer_{n}_attention_gated")
    width = block.num_heads * block.head_dim
    y = decoder.flatten(y, width, name=f"layer_{n}_attention_rows")
    return decoder.linear(y, n, block.output)


ATTENTION: dict[type, Callable[[Decoder, int, Layer, Value], Value]] = {Attention: add_attention}


def _check(block: Attention) -> None:
    """The operators take 0, and some what is below it, for a number that was not given."""
    numbers = {"attention scale": block.scale, "soft cap on attention scores": block.softcap}
    for name, value in numbers.items():
        if value is not None and not 0 < value < math.inf:
            raise CannotExpress(
                f"an {name} of {value} has no ONNX form, it must be positive; mend config.json"
            )


def _parts(decoder: Decoder, n: int, block: Attention, x: Value) -> tuple[list[Part], Value | None]:
    """(q, k and v of x, within the clamp; (b, s, h*d) of the gates where heads have some)."""
    project = find(PROJECTIONS, block.projections)
    values = project(decoder, n, block, block.projections, x)
    gate = None
    if block.gated:
        values[0], gate = _ungated(decoder, n, block, values[0])
    counts = (block.num_heads, block.num_kv_heads, block.num_kv_heads)
    apart = isinstance(block.projections, Separate | KeysAsValues | Queries)
    is_whole = not decoder.store.flat and apart
    parts = [
        Part(n, letter, value, heads, is_whole)
        for letter, value, heads in zip("qkv", values, counts, strict=False)
    ]
    if gate is not None:
        parts[0] = replace(parts[0], whole=False)
    return [clamped(decoder, part, block.clamp) for part in parts], gate


def _ungated(decoder: Decoder, n: int, block: Attention, rows: Value) -> tuple[Value, Value]:
    """(q (b*s, h, d), gates (b, s, h*d)) of both, head by head."""
    graph, h, d = decoder.graph, block.num_heads, block.head_dim
    heads = graph.op("Reshape", rows, graph.ints(-1, h, 2 * d), name=f"layer_{n}_q_and_gate")
    names = [f"layer_{n}_q_alone", f"layer_{n}_gate"]
    q, gate = graph.ops("Split", (heads, graph.ints(d, d)), names, axis=-1)
    whole_gate = graph.op("Reshape", gate, decoder.inputs.shape, name=f"layer_{n}_gate")
    return q, whole_gate


def _turned(
    decoder: Decoder, kind: str, block: Attention, part: Part, norm: Norm | None, *, late: bool
) -> Part:
    """A part by its norm, rotated where it is no v: (b, s, heads*d). late: the norm comes last."""
    steps = [lambda own: whole(decoder, normed(decoder, own, norm, block.head_dim))]
    if part.letter != "v":
        steps.append(lambda own: _rotated(decoder, kind, block, whole(decoder, own)))
    for step in reversed(steps) if late else steps:
        part = step(part)
    return part


def _keys(
    decoder: Decoder, n: int, told: Told, own: Sequence[Part]
) -> tuple[Keys, tuple[Value, Value]]:
    """(the keys and values that a layer attends to, what it calls those of the next call): its own,
    or another layer's.
    """
    kept = decoder.inputs.keys
    if own:
        past, present = cache_of(decoder, n, told)
        kept[n] = Keys(own[0].value, own[1].value, past)
        return kept[n], present
    again = f"layer_{n}_keys_again", f"layer_{n}_values_again"
    return kept[decoder.store.model.stack.keys_of(n)], again


def _rotated(decoder: Decoder, kind: str, block: Attention, part: Part) -> Part:
    name = f"layer_{part.n}_{part.letter}_rotated"
    value = decoder.profile.rotate(part.value, kind, block, heads=part.heads, name=name)
    return Part(part.n, part.letter, value, part.heads, whole=True)


def _tempered(decoder: Decoder, n: int, temperature: Temperature | None, q: Value) -> Value:
    """q times what its token's position asks for."""
    if temperature is None:
        return q
    factor = decoder.inputs.temperature(temperature)
    return decoder.graph.op("Mul", q, factor, name=f"layer_{n}_q_tempered")


def cache_of(
    decoder: Decoder, n: int, told: Told
) -> tuple[tuple[Value, Value], tuple[Value, Value]]:
    """((past key, value), (present key, value)): (b, k, p, d) and (b, k, p + s, d)."""
    graph, dtype = decoder.graph, decoder.store.kind.dtype
    heads, size = told.num_kv_heads, told.head_dim
    key, value = (
        graph.input(f"past_key_values.{n}.{part}", dtype, [B, heads, P, size])
        for part in ("key", "value")
    )
    new_key, new_value = (
        graph.declare(f"present.{n}.{part}", dtype, [B, heads, T, size])
        for part in ("key", "value")
    )
    return (key, value), (new_key, new_value)


def _separate(decoder: Decoder, n: int, _block: Attention, rows: Separate, x: Value) -> list[Value]:
    return decoder.split(x, n, rows.q, rows.k, rows.v)


def _keys_as_values(
    decoder: Decoder, n: int, _block: Attention, rows: KeysAsValues, x: Value
) -> list[Value]:
    q, k = decoder.split(x, n, rows.q, rows.k)
    return [q, k, k]


def _queries(decoder: Decoder, n: int, _block: Attention, rows: Queries, x: Value) -> list[Value]:
    return [decoder.linear(x, n, rows.q)]


def _fused(decoder: Decoder, n: int, block: Attention, rows: Fused, x: Value) -> list[Value]:
    """The same of one product; (b*s, k, heads a group * d) each where rows come group by group."""
    graph = decoder.graph
    packed = decoder.linear(x, n, rows.qkv)
    names = [f"layer_{n}_{part}" for part in "qkv"]
    h, k, d = block.num_heads, block.num_kv_heads, block.head_dim
    if rows.order is Order.STACKED:
        return graph.ops("Split", (packed, graph.ints(h * d, k * d, k * d)), names, axis=-1)
    g = h // k  # heads of q a group: 1 where rows come head by head
    groups = graph.op("Reshape", packed, graph.ints(-1, k, (g + 2) * d), name=f"layer_{n}_qkv")
    return graph.ops("Split", (groups, graph.ints(g * d, d, d)), names, axis=2)


PROJECTIONS: dict[type, Callable[..., list[Value]]] = {
    Separate: _separate,
    KeysAsValues: _keys_as_values,
    Queries: _queries,
    Fused: _fused,
}
"""Projections -> q (..., h*d), k and v (..., k*d) of x."""
