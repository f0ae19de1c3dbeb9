"""Latent attention: keys and values are made of the latent in every call, and cached as those of
any attention. Values are smaller than keys, and end in zeros: onnxruntime's GroupQueryAttention
and every client know one size for both.

Shape letters: b batch, s new tokens, t = b*s, e hidden, h heads, n values of a head that stand
still, r that rotate, v of a value head, l latent.
"""

from __future__ import annotations

from collections.abc import Callable

from converters.to_onnx.blocks.attention import cache_of
from converters.to_onnx.blocks.frame import Decoder
from converters.to_onnx.graph import Value
from converters.to_onnx.profiles._shared import Heads, Told
from ropeconv.arch.blocks.mla import LatentAttention, LowRank
from ropeconv.arch.blocks.norm import RmsNorm
from ropeconv.arch.stack import Layer
from ropeconv.errors import CannotExpress


def add_latent_attention(decoder: Decoder, n: int, layer: Layer, x: Value) -> Value:
    """(..., e) of the normed x (..., e)."""
    block = layer.mixer
    assert isinstance(block, LatentAttention)
    if block.value_dim > block.head_dim:
        raise CannotExpress(
            f"values of {block.value_dim} numbers to keys of {block.head_dim} have no ONNX form; "
            f"take `ropeconv gguf` or `ropeconv safetensors`"
        )
    q = _queries(decoder, n, layer, block, x)
    k, v = _keys_and_values(decoder, n, layer, block, x)
    told = Told(
        block.num_heads,
        block.num_kv_heads,
        block.head_dim,
        block.scale * decoder.store.model.score_factor,
    )
    past, present = cache_of(decoder, n, told)
    y = decoder.profile.attend(Heads(n, told, q, k, v, past, present))
    y = _narrowed(decoder, block, y, name=f"layer_{n}_attention_values")
    y = decoder.flatten(y, block.num_heads * block.value_dim, name=f"layer_{n}_attention_rows")
    return decoder.linear(y, n, block.output)


def _queries(decoder: Decoder, n: int, layer: Layer, block: LatentAttention, x: Value) -> Value:
    """(b, s, h*(n+r)), the last r values of each head rotated."""
    query = block.query
    if isinstance(query, LowRank):
        x = _normed(decoder, n, decoder.linear(x, n, query.down), query.norm)
        query = query.up
    rows = decoder.linear(x, n, query)
    parts = (block.still_dim, block.rotary_size)
    still, turned = _cut(decoder, rows, block.num_heads, parts, name=f"layer_{n}_q")
    turned = _rotated(decoder, layer, block, turned, block.num_heads, name=f"layer_{n}_q_rotated")
    return _joined(decoder, still, turned, name=f"layer_{n}_q_whole")


def _keys_and_values(
    decoder: Decoder, n: int, layer: Layer, block: LatentAttention, x: Value
) -> tuple[Value, Value]:
    """k and v (b, s, h*(n+r)); every head's k ends in the same r rotated values, its v in zeros."""
    graph, h = decoder.graph, block.num_heads
    compressed = decoder.linear(x, n, block.compress)
    sizes = graph.ints(block.latent_dim, block.rotary_size)
    names = [f"layer_{n}_latent", f"layer_{n}_k_turned"]
    latent, turned = graph.ops("Split", (compressed, sizes), names, axis=-1)
    rows = decoder.linear(_normed(decoder, n, latent, block.norm), n, block.expand)
    parts = (block.still_dim, block.value_dim)
    still, values = _cut(decoder, rows, h, parts, name=f"layer_{n}_kv")
    name = f"layer_{n}_k_rotated"
    turned = _rotated(decoder, layer, block, turned, 1, name=name)
    every = graph.op("Expand", turned, graph.ints(1, h, 1), name=f"{name}_every")
    missing = block.head_dim - block.value_dim
    if missing:
        ends = graph.ints(0, 0, 0, 0, 0, missing)
        values = graph.op("Pad", values, ends, name=f"layer_{n}_v_wide")
    v = graph.op("Reshape", values, decoder.inputs.shape, name=f"layer_{n}_v_3d")
    return _joined(decoder, still, every, name=f"layer_{n}_k_whole"), v


def _narrowed(decoder: Decoder, block: LatentAttention, y: Value, *, name: str) -> Value:
    """(b, s, h*v) of y (b, s, h*(n+r)), whose heads end in zeros."""
    if block.value_dim == block.head_dim:
        return y
    graph = decoder.graph
    by_head = graph.ints(-1, block.num_heads, block.head_dim)
    heads = graph.op("Reshape", y, by_head, name=f"{name}_heads")
    ends = (graph.ints(0), graph.ints(block.value_dim), graph.ints(2))
    narrow = graph.op("Slice", heads, *ends, name=name)
    return graph.op("Reshape", narrow, decoder.inputs.shape, name=f"{name}_3d")


def _normed(decoder: Decoder, n: int, x: Value, norm: RmsNorm) -> Value:
    return decoder.profile.norm(x, decoder.norm(norm, n), name=f"layer_{n}_{norm.role.value}")


def _cut(
    decoder: Decoder, rows: Value, heads: int, sizes: tuple[int, int], *, name: str
) -> list[Value]:
    """Two parts (t, h, size) of every head of rows (..., h*(both))."""
    graph = decoder.graph
    by_head = graph.op("Reshape", rows, graph.ints(-1, heads, sum(sizes)), name=f"{name}_heads")
    return graph.ops("Split", (by_head, graph.ints(*sizes)), [f"{name}_0", f"{name}_1"], axis=2)


def _rotated(
    decoder: Decoder, layer: Layer, block: LatentAttention, x: Value, heads: int, *, name: str
) -> Value:
    """(t, h, r) of any view of it."""
    graph = decoder.graph
    x = graph.op("Reshape", x, decoder.inputs.shape, name=f"{name}_3d")
    x = decoder.profile.rotate(x, layer.kind, block, heads=heads, name=name)
    return graph.op("Reshape", x, graph.ints(-1, heads, block.rotary_size), name=f"{name}_heads")


def _joined(decoder: Decoder, still: Value, turned: Value, *, name: str) -> Value:
    """(b, s, h*(n+r)) of (t, h, n) and (t, h, r)."""
    graph = decoder.graph
    whole = graph.op("Concat", still, turned, name=name, axis=2)
    return graph.op("Reshape", whole, decoder.inputs.shape, name=f"{name}_3d")


LATENT: dict[type, Callable[[Decoder, int, Layer, Value], Value]] = {
    LatentAttention: add_latent_attention
}
