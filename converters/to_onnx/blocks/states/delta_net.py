"""The gated delta net: a convolution, a state that every token changes, a gated norm.

The state and what enters it are float32 in every type, as in transformers.
"""

from __future__ import annotations

from collections.abc import Callable

from converters.to_onnx.blocks import find
from converters.to_onnx.blocks.frame import B, Decoder, name_of
from converters.to_onnx.blocks.states.short_conv import convolved
from converters.to_onnx.graph import Value
from converters.to_onnx.profiles._shared import Recurrence
from ropeconv.arch.blocks.states.delta_net import Apart, ByHead, GatedDeltaNet
from ropeconv.arch.blocks.states.mamba2 import Mamba2
from ropeconv.arch.blocks.weight import Weight
from ropeconv.arch.stack import Layer

SINGLE = "float32"
EPSILON = 1e-6  # under the root of a length


def add_delta_net(decoder: Decoder, n: int, layer: Layer, x: Value) -> Value:
    """(..., e) of the normed x (..., e)."""
    graph, block = decoder.graph, layer.mixer
    assert isinstance(block, GatedDeltaNet)
    x = decoder.real(x, n)
    qkv, z, b, a = find(PROJECTIONS, block.projections)(decoder, n, block, x)
    y = convolved(decoder, n, block, qkv, activation="silu")
    keys, values = block.key_heads * block.key_dim, block.value_heads * block.value_dim
    names = [f"layer_{n}_state_{part}" for part in "qkv"]
    q, k, v = graph.ops("Split", (y, graph.ints(keys, keys, values)), names, axis=-1)
    y = _state(decoder, n, block, (q, k, v), a, b)
    y = _gated(decoder, n, block, y, z)
    y = decoder.flatten(y, values, name=f"layer_{n}_state_rows")
    return decoder.linear(y, n, block.output)


def _apart(decoder: Decoder, n: int, block: GatedDeltaNet, x: Value) -> list[Value]:
    """qkv, z, b and a of x, (b, s, ...); b's and a's matrices, which are small, stay floats."""
    rows = block.projections
    assert isinstance(rows, Apart)
    wide = decoder.split(x, n, rows.qkv, rows.z)
    small = [decoder.linear(x, n, each, floats=True) for each in (rows.b, rows.a)]
    names = [f"layer_{n}_state_{part}" for part in ("qkv", "z", "b", "a")]
    pairs = zip((*wide, *small), names, strict=True)
    return [decoder.whole(value, name=name) for value, name in pairs]


def _by_head(decoder: Decoder, n: int, block: GatedDeltaNet, x: Value) -> list[Value]:
    """The same of rows that come key head by key head."""
    rows = block.projections
    assert isinstance(rows, ByHead)
    wide, small = decoder.linear(x, n, rows.qkvz), decoder.linear(x, n, rows.ba, floats=True)
    *qkv, z = _parted(decoder, n, block, wide, "qkvz", block.of_each_head)
    each = block.value_heads // block.key_heads
    b, a = _parted(decoder, n, block, small, "ba", (each, each))
    return [decoder.graph.op("Concat", *qkv, name=f"layer_{n}_state_qkv", axis=-1), z, b, a]


def _parted(
    decoder: Decoder, n: int, block: GatedDeltaNet, x: Value, parts: str, sizes: tuple[int, ...]
) -> list[Value]:
    """(b, s, ...) of each part of x, of which every key head has so many values."""
    graph, names = decoder.graph, [f"layer_{n}_state_{part}_of_heads" for part in parts]
    heads = graph.ints(-1, block.key_heads, sum(sizes))
    x = graph.op("Reshape", x, heads, name=f"layer_{n}_state_{parts}")
    found = graph.ops("Split", (x, graph.ints(*sizes)), names, axis=-1)
    return [
        graph.op("Reshape", each, decoder.inputs.shape, name=f"layer_{n}_state_{part}")
        for part, each in zip(parts, found, strict=True)
    ]


PROJECTIONS: dict[type, Callable[[Decoder, int, GatedDeltaNet, Value], list[Value]]] = {
    Apart: _apart,
    ByHead: _by_head,
}


def _state(
    decoder: Decoder, n: int, block: GatedDeltaNet, qkv: tuple[Value, ...], a: Value, b: Value
) -> Value:
    """(b, s, v*d_v) what the state gives for each q, in the type of the activations."""
    graph, dtype = decoder.graph, decoder.store.kind.dtype
    shape: list[int | str] = [B, block.value_heads, block.key_dim, block.value_dim]
    past = graph.input(f"past_recurrent.{n}", SINGLE, shape)
    present = graph.declare(f"present_recurrent.{n}", SINGLE, shape)
    q, k, v = (single(decoder, each, f"layer_{n}_state_single") for each in qkv)
    q, k = (_unit(decoder, n, block, each, part) for each, part in zip((q, k), "qk", strict=True))
    k = graph.op("Mul", k, _number(decoder, block.key_dim**-0.5), name=f"layer_{n}_state_k_unit")
    made = Recurrence(
        n,
        "gated delta net",
        block.key_heads,
        block.value_heads,
        1.0 / block.key_dim,
        q,
        k,
        v,
        _decay(decoder, n, block, a),
        past,
        present,
        _share(decoder, n, b),
    )
    y = decoder.profile.recur(made)
    return y if dtype == SINGLE else graph.cast(y, dtype, name=f"layer_{n}_state_cast")


def _number(decoder: Decoder, value: float) -> Value:
    return decoder.graph.constant(value, SINGLE, name="state_scale")


def single(decoder: Decoder, x: Value, name: str) -> Value:
    """x as float32."""
    same = decoder.store.kind.dtype == SINGLE
    return x if same else decoder.graph.cast(x, SINGLE, name=name)


def _unit(decoder: Decoder, n: int, block: GatedDeltaNet, x: Value, part: str) -> Value:
    """Every head of x (b, s, h*d_k) by its length, times the root of d_k: a norm without weight."""
    graph, name, size = decoder.graph, f"layer_{n}_state_{part}", block.key_dim
    heads = graph.op("Reshape", x, graph.ints(-1, size), name=f"{name}_heads")
    ones = graph.filled(1.0, SINGLE, size, name=f"ones_single_{size}")
    unit = decoder.profile.rms(heads, ones, EPSILON / size, name=f"{name}_length")
    return graph.op("Reshape", unit, decoder.inputs.shape, name=f"{name}_3d")


def _decay(decoder: Decoder, n: int, block: GatedDeltaNet, a: Value) -> Value:
    """(b, s, v) the log of what is left of the state: -exp(decay) * softplus(a + dt)."""
    return fading(decoder, n, block, step(decoder, n, block, a))


def step(decoder: Decoder, n: int, block: GatedDeltaNet | Mamba2, dt: Value) -> Value:
    """softplus(dt + its bias), float32."""
    graph, name = decoder.graph, f"layer_{n}_decay_step"
    dt = single(decoder, dt, f"layer_{n}_decay_single")
    bias = vector(decoder, n, block.dt)
    return graph.op("Softplus", graph.op("Add", dt, bias, name=name), name=name)


def fading(decoder: Decoder, n: int, block: GatedDeltaNet | Mamba2, step: Value) -> Value:
    """The log of what a step leaves of the state: -exp(decay) * step."""
    graph, name = decoder.graph, f"layer_{n}_decay"
    rate = graph.op("Exp", vector(decoder, n, block.decay), name=f"{name}_rate")
    return graph.op("Neg", graph.op("Mul", step, rate, name=name), name=name)


def vector(decoder: Decoder, n: int, weight: Weight) -> Value:
    """A tensor's numbers, float32."""
    return decoder.store.vector(name_of(weight, n), dtype=SINGLE)


def _share(decoder: Decoder, n: int, b: Value) -> Value:
    """(b, s, v) how much of the error is corrected."""
    b = single(decoder, b, f"layer_{n}_share_single")
    return decoder.graph.op("Sigmoid", b, name=f"layer_{n}_share")


def _gated(decoder: Decoder, n: int, block: GatedDeltaNet, y: Value, z: Value) -> Value:
    """(b, s, v*d_v) norm(y) * silu(z), the norm over each head."""
    graph, name = decoder.graph, f"layer_{n}_state"
    heads = graph.op("Reshape", y, graph.ints(-1, block.value_dim), name=f"{name}_heads")
    y = decoder.profile.norm(heads, decoder.norm(block.norm, n), name=f"{name}_norm")
    y = graph.op("Reshape", y, decoder.inputs.shape, name=f"{name}_3d")
    gate = graph.op("Mul", z, graph.op("Sigmoid", z, name="sigmoid"), name=f"{name}_gate")
    return graph.op("Mul", y, gate, name=f"{name}_gated")


DELTA_NETS: dict[type, Callable[[Decoder, int, Layer, Value], Value]] = {
    GatedDeltaNet: add_delta_net
}
