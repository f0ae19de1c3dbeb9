"""Feed-forward blocks and their activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from converters.to_onnx.blocks.frame import Decoder, name_of
from converters.to_onnx.graph import Graph, Value
from ropeconv.arch.blocks.mlp import FusedGatedMlp, GatedMlp, PlainMlp
from ropeconv.arch.blocks.moe import ClampedUnit
from ropeconv.errors import CannotExpress


def _gated(decoder: Decoder, n: int, block: GatedMlp, x: Value) -> Value:
    """down(act(gate x) * up x)."""
    activate = find_activation(block.activation)
    gate, up = decoder.split(x, n, block.gate, block.up)
    return decoder.linear(_product(decoder.graph, n, activate, gate, up), n, block.down)


def _fused(decoder: Decoder, n: int, block: FusedGatedMlp, x: Value) -> Value:
    """The same with gate and up in one matrix."""
    graph, activate = decoder.graph, find_activation(block.activation)
    both = decoder.linear(x, n, block.gate_up)
    half = block.down.weight.shape[1]
    names = [f"layer_{n}_gate", f"layer_{n}_up"]
    gate, up = graph.ops("Split", (both, graph.ints(half, half)), names, axis=-1)
    return decoder.linear(_product(graph, n, activate, gate, up), n, block.down)


def _plain(decoder: Decoder, n: int, block: PlainMlp, x: Value) -> Value:
    """down(act(up x))."""
    activate = _learned(decoder, n, block) if block.learned else find_activation(block.activation)
    inner = activate(decoder.graph, decoder.linear(x, n, block.up))
    return decoder.linear(inner, n, block.down)


def _learned(decoder: Decoder, n: int, block: PlainMlp) -> Activation:
    """An activation with weights of its own."""
    if block.activation not in LEARNED:
        raise CannotExpress(f"no ONNX form for activation {block.activation!r} with weights")
    values = [decoder.store.vector(name_of(weight, n)) for weight in block.learned]
    return partial(LEARNED[block.activation], values=values, dtype=decoder.store.kind.dtype)


DENSE: dict[type, Callable[[Decoder, int, Any, Value], Value]] = {
    GatedMlp: _gated,
    FusedGatedMlp: _fused,
    PlainMlp: _plain,
}

Activation = Callable[[Graph, Value], Value]
SINGLE = "float32"


def _product(graph: Graph, n: int, activate: Activation, gate: Value, up: Value) -> Value:
    return graph.op("Mul", activate(graph, gate), up, name=f"layer_{n}_gated")


def find_activation(name: str) -> Activation:
    """The nodes of an activation; CannotExpress for one that has none here."""
    if name not in ACTIVATIONS:
        raise CannotExpress(
            f"no ONNX form for activation {name!r}; known: {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


def add_clamped_unit(
    graph: Graph, unit: ClampedUnit, gate: Value, up: Value, *, dtype: str, name: str
) -> Value:
    """(up + 1) * gate * sigmoid(alpha * gate) of the clamped."""
    limit, least = (graph.constant(by * unit.limit, dtype, name="unit_limit") for by in (1, -1))
    gate = graph.op("Min", gate, limit, name=f"{name}_gate")
    up = graph.op("Clip", up, least, limit, name=f"{name}_up")
    alpha = graph.constant(unit.alpha, dtype, name="unit_alpha")
    share = graph.op("Mul", gate, alpha, name=f"{name}_share")
    share = graph.op("Sigmoid", share, name=f"{name}_share")
    one = graph.constant(1, dtype, name="unit_one")
    gate = graph.op("Mul", gate, share, name=f"{name}_gate")
    return graph.op("Mul", graph.op("Add", up, one, name=f"{name}_up"), gate, name=name)


def _silu(graph: Graph, x: Value) -> Value:
    return graph.op("Mul", x, graph.op("Sigmoid", x, name="sigmoid"), name="silu")


def _gelu(graph: Graph, x: Value) -> Value:
    return graph.op("Gelu", x, name="gelu", approximate="none")


def _gelu_tanh(graph: Graph, x: Value) -> Value:
    return graph.op("Gelu", x, name="gelu", approximate="tanh")


def _relu2(graph: Graph, x: Value) -> Value:
    positive = graph.op("Relu", x, name="relu")
    return graph.op("Mul", positive, positive, name="relu2")


def _xielu(graph: Graph, x: Value, *, values: Sequence[Value], dtype: str) -> Value:
    """p x^2 + b x above 0, else (e^min(x, eps) - 1 - x) n + b x; p and n as stored are inverse
    softplus, n less b (arXiv 2411.13010; transformers activations.py).

    In float32: near 0 the difference of e^x and 1 has few digits.
    """
    if dtype != SINGLE:
        x, *values = (graph.cast(value, SINGLE, name="xielu_single") for value in (x, *values))
    p, n, b, eps = values
    p, n = (graph.op("Softplus", value, name="xielu_alpha") for value in (p, n))
    n = graph.op("Add", n, b, name="xielu_alpha")
    square = graph.op("Mul", graph.op("Mul", x, x, name="xielu_square"), p, name="xielu_square")
    power = graph.op("Exp", graph.op("Min", x, eps, name="xielu_min"), name="xielu_exp")
    below = graph.op("Sub", power, graph.constant(1, SINGLE, name="xielu_one"), name="xielu_below")
    below = graph.op("Mul", graph.op("Sub", below, x, name="xielu_below"), n, name="xielu_below")
    above = graph.op("Greater", x, graph.constant(0, SINGLE, name="xielu_zero"), name="xielu_above")
    bent = graph.op("Where", above, square, below, name="xielu_bent")
    y = graph.op("Add", bent, graph.op("Mul", x, b, name="xielu_line"), name="xielu")
    return y if dtype == SINGLE else graph.cast(y, dtype, name="xielu_cast")


# transformers activations.py: the three tanh forms are one formula
ACTIVATIONS: dict[str, Activation] = {
    "silu": _silu,
    "swish": _silu,
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu2": _relu2,
}
LEARNED: dict[str, Callable[..., Value]] = {"xielu": _xielu}
"""Activation -> its nodes, of (graph, x) and the values of its weights."""
