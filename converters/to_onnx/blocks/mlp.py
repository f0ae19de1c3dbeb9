"""Feed-forward blocks and their activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from converters.to_onnx.blocks.frame import Decoder
from converters.to_onnx.graph import Graph, Value
from ropeconv.arch.blocks.mlp import FusedGatedMlp, GatedMlp, PlainMlp
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
    activate = find_activation(block.activation)
    inner = activate(decoder.graph, decoder.linear(x, n, block.up))
    return decoder.linear(inner, n, block.down)


DENSE: dict[type, Callable[[Decoder, int, Any, Value], Value]] = {
    GatedMlp: _gated,
    FusedGatedMlp: _fused,
    PlainMlp: _plain,
}

Activation = Callable[[Graph, Value], Value]


def _product(graph: Graph, n: int, activate: Activation, gate: Value, up: Value) -> Value:
    return graph.op("Mul", activate(graph, gate), up, name=f"layer_{n}_gated")


def find_activation(name: str) -> Activation:
    """The nodes of an activation; CannotExpress for one that has none here."""
    if name not in ACTIVATIONS:
        raise CannotExpress(
            f"no ONNX form for activation {name!r}; known: {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


def _silu(graph: Graph, x: Value) -> Value:
    return graph.op("Mul", x, graph.op("Sigmoid", x, name="sigmoid"), name="silu")


def _gelu(graph: Graph, x: Value) -> Value:
    return graph.op("Gelu", x, name="gelu", approximate="none")


def _gelu_tanh(graph: Graph, x: Value) -> Value:
    return graph.op("Gelu", x, name="gelu", approximate="tanh")


# transformers activations.py: the three tanh forms are one formula
ACTIVATIONS: dict[str, Activation] = {
    "silu": _silu,
    "swish": _silu,
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
}
