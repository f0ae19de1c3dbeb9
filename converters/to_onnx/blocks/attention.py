"""Softmax attention: projections, head norms, rotation, attention, output projection."""

from __future__ import annotations

from collections.abc import Callable

from converters.to_onnx.blocks import find
from converters.to_onnx.blocks.frame import B, Decoder, P, T
from converters.to_onnx.graph import Value
from converters.to_onnx.profiles._shared import Heads
from ropeconv.arch.blocks.attention import Attention, Fused, Order, Pairing, Separate
from ropeconv.arch.blocks.norm import Norm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.stack import Layer
from ropeconv.errors import CannotExpress


def add_attention(decoder: Decoder, n: int, layer: Layer, x: Value) -> Value:
    """(..., e) of the normed x (..., e)."""
    block = layer.mixer
    if block.pairing is not Pairing.HALVES:
        raise CannotExpress("ropeconv's ONNX graphs rotate halves of a head, not neighbours")
    project = find(PROJECTIONS, block.projections)
    q, k, v = project(decoder, n, block, block.projections, x)
    q = _head_norm(decoder, n, block, "q", block.q_norm, q)
    k = _head_norm(decoder, n, block, "k", block.k_norm, k)
    v = _head_norm(decoder, n, block, "v", None, v)
    q = _rotated(decoder, n, layer, "q", block.num_heads, q)
    k = _rotated(decoder, n, layer, "k", block.num_kv_heads, k)
    past, present = _cache(decoder, n, block)
    y = decoder.profile.attend(Heads(n, block, q, k, v, past, present))
    width = block.num_heads * block.head_dim
    y = decoder.flatten(y, width, name=f"layer_{n}_attention_rows")
    return decoder.linear(y, n, block.output)


MIXERS: dict[type, Callable[[Decoder, int, Layer, Value], Value]] = {Attention: add_attention}


def _rotated(decoder: Decoder, n: int, layer: Layer, part: str, heads: int, values: Value) -> Value:
    size = layer.mixer.head_dim
    name = f"layer_{n}_{part}_rotated"
    return decoder.profile.rotate(values, layer.kind, heads=heads, size=size, name=name)


def _cache(
    decoder: Decoder, n: int, block: Attention
) -> tuple[tuple[Value, Value], tuple[Value, Value]]:
    """((past key, value), (present key, value)): (b, k, p, d) and (b, k, p + s, d)."""
    graph, dtype = decoder.graph, decoder.store.kind.dtype
    heads, size = block.num_kv_heads, block.head_dim
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


def _fused(decoder: Decoder, n: int, block: Attention, rows: Fused, x: Value) -> list[Value]:
    """The same of one product; (b*s, h, d) each where the rows come head by head."""
    graph = decoder.graph
    packed = decoder.linear(x, n, rows.qkv)
    names = [f"layer_{n}_{part}" for part in "qkv"]
    h, k, d = block.num_heads, block.num_kv_heads, block.head_dim
    if rows.order is Order.PER_HEAD:  # b*s (h 3 d) -> three times b*s h d
        by_head = graph.op("Reshape", packed, graph.ints(-1, h, 3 * d), name=f"layer_{n}_qkv")
        return graph.ops("Split", (by_head, graph.ints(d, d, d)), names, axis=2)
    return graph.ops("Split", (packed, graph.ints(h * d, k * d, k * d)), names, axis=-1)


PROJECTIONS: dict[type, Callable[..., list[Value]]] = {Separate: _separate, Fused: _fused}
"""Projections -> q (..., h*d), k and v (..., k*d) of x."""


def _head_norm(
    decoder: Decoder, n: int, block: Attention, part: str, norm: Norm | None, y: Value
) -> Value:
    """(b, s, heads*d): normed over each head, or over all of q or k, where the block has a norm."""
    graph = decoder.graph
    apart = decoder.store.flat or isinstance(block.projections, Fused)
    if norm is not None:
        name = f"layer_{n}_{norm.role.value}"
        if Trait.HEAD_NORMS in block.traits:
            y = graph.op("Reshape", y, graph.ints(-1, block.head_dim), name=name)
            apart = True
        y = decoder.profile.norm(y, decoder.norm(norm, n), name=name)
    if not apart:
        return y
    return graph.op("Reshape", y, decoder.inputs.shape, name=f"layer_{n}_{part}_3d")
