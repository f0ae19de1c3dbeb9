"""Mamba2's mixer: a convolution, a state that every token fades and adds to, a gate.

The state and what enters it are float32 in every type, as in transformers.
"""

from __future__ import annotations

from converters.to_onnx.blocks.frame import B, Decoder, name_of
from converters.to_onnx.blocks.states.delta_net import SINGLE, fading, single, step, vector
from converters.to_onnx.blocks.states.short_conv import convolved
from converters.to_onnx.graph import Value
from converters.to_onnx.profiles._shared import Norm, Recurrence
from ropeconv.arch.blocks.states.mamba2 import Mamba2

PARTS = ("z", "x", "b", "c", "dt")


def add_mamba2(decoder: Decoder, n: int, block: Mamba2, x: Value) -> Value:
    """(..., e) of the normed x (..., e)."""
    graph = decoder.graph
    z, *xbc, dt = _projected(decoder, n, block, decoder.real(x, n))
    xbc_rows = graph.op("Concat", *xbc, name=f"layer_{n}_state_xbc", axis=-1)
    y = convolved(decoder, n, block, xbc_rows, activation="silu")
    y = decoder.real(y, n)
    names = [f"layer_{n}_state_{part}_mixed" for part in "xbc"]
    x, b, c = graph.ops("Split", (y, graph.ints(*block.parts[1:4])), names, axis=-1)
    y = _state(decoder, n, block, (x, b, c), dt)
    y = _gated(decoder, n, block, y, z)
    y = decoder.flatten(y, block.inner, name=f"layer_{n}_state_rows")
    return decoder.linear(y, n, block.output)


def _projected(decoder: Decoder, n: int, block: Mamba2, x: Value) -> list[Value]:
    """z, x, B, C and dt of x, (b, s, ...), each by its scale."""
    rows = decoder.whole(decoder.linear(x, n, block.input), name=f"layer_{n}_state_in_3d")
    names = [f"layer_{n}_state_{part}" for part in PARTS]
    found = decoder.graph.ops("Split", (rows, decoder.graph.ints(*block.parts)), names, axis=-1)
    return [
        decoder.scaled(value, scale, constant="state_scale", name=f"{name}_scaled")
        for value, scale, name in zip(found, block.scales, names, strict=True)
    ]


def _state(decoder: Decoder, n: int, block: Mamba2, xbc: tuple[Value, ...], dt: Value) -> Value:
    """(b, s, h*p) what the state gives for C, plus skip * x, in the type of the activations."""
    graph, dtype = decoder.graph, decoder.store.kind.dtype
    shape: list[int | str] = [B, block.heads, block.state, block.head_dim]
    past = graph.input(f"past_ssm.{n}", SINGLE, shape)
    present = graph.declare(f"present_ssm.{n}", SINGLE, shape)
    x, b, c = (single(decoder, each, f"layer_{n}_state_single") for each in xbc)
    length = step(decoder, n, block, dt)
    heads = _by_head(decoder, n, block, x, block.head_dim)
    steps = _by_head(decoder, n, block, length, 1)
    added = graph.op("Mul", heads, steps, name=f"layer_{n}_state_added")
    v = graph.op("Reshape", added, decoder.inputs.shape, name=f"layer_{n}_state_added_3d")
    decay = fading(decoder, n, block, length)
    given = (block.groups, block.heads, 1.0, c, b, v, decay, past, present)
    y = decoder.profile.recur(Recurrence(n, "Mamba2 state", *given))
    own = graph.op(
        "Reshape", vector(decoder, n, block.skip), graph.ints(block.heads, 1), name="state_skip"
    )
    passed = graph.op("Mul", heads, own, name=f"layer_{n}_state_passed")
    passed = graph.op("Reshape", passed, decoder.inputs.shape, name=f"layer_{n}_state_passed_3d")
    y = graph.op("Add", y, passed, name=f"layer_{n}_state_and_passed")
    return y if dtype == SINGLE else graph.cast(y, dtype, name=f"layer_{n}_state_cast")


def _by_head(decoder: Decoder, n: int, block: Mamba2, x: Value, size: int) -> Value:
    """(b*s, h, size)."""
    shape = decoder.graph.ints(-1, block.heads, size)
    return decoder.graph.op("Reshape", x, shape, name=f"layer_{n}_state_heads")


def _gated(decoder: Decoder, n: int, block: Mamba2, y: Value, z: Value) -> Value:
    """y * silu(z), with the norm where there is one."""
    graph, name = decoder.graph, f"layer_{n}_state"
    gate = graph.op("Mul", z, graph.op("Sigmoid", z, name="sigmoid"), name=f"{name}_gate")
    if block.norm_first:
        y = _normed(decoder, n, block, y)
    y = graph.op("Mul", y, gate, name=f"{name}_gated")
    return y if block.norm_first else _normed(decoder, n, block, y)


def _normed(decoder: Decoder, n: int, block: Mamba2, y: Value) -> Value:
    """Each group of y by its own length, then by the norm's weight."""
    if block.norm is None:
        return y
    graph, name, size = decoder.graph, f"layer_{n}_state_norm", block.inner // block.groups
    groups = graph.op("Reshape", y, graph.ints(-1, size), name=f"{name}_groups")
    plain = Norm(block.norm, (decoder.ones(size),))
    y = decoder.profile.norm(groups, plain, name=name)
    y = graph.op("Reshape", y, decoder.inputs.shape, name=f"{name}_3d")
    own = decoder.store.vector(name_of(block.norm.weight, n))
    return graph.op("Mul", y, own, name=f"{name}_own")
