"""Which experts a token goes to, and with which weights.

Shape letters: t tokens (b*s), x experts, k chosen.
"""

from __future__ import annotations

from collections.abc import Callable

from converters.to_onnx.graph import Graph, Value
from ropeconv.arch.blocks.moe import Routing


def chosen_shares(
    graph: Graph, n: int, routing: Routing, logits: Value, *, dtype: str
) -> tuple[Value, Value]:
    """((..., k) shares, (..., k) experts) of logits (..., x): softmax over all in float32."""
    if dtype != "float32":
        logits = graph.cast(logits, "float32", name=f"layer_{n}_router_single")
    shares = graph.op("Softmax", logits, name=f"layer_{n}_router_shares", axis=-1)
    count = graph.ints(routing.chosen)
    names = (f"layer_{n}_share", f"layer_{n}_expert")
    values, experts = graph.ops("TopK", (shares, count), names, axis=-1)
    return values, experts


def share_sum(graph: Graph, n: int, shares: Value) -> Value:
    """(..., 1) what the shares of a token's experts add up to."""
    axes = graph.ints(-1)
    return graph.op("ReduceSum", shares, axes, name=f"layer_{n}_share_sum", keepdims=1)


def _softmax(
    graph: Graph, n: int, routing: Routing, logits: Value, *, dtype: str
) -> tuple[Value, Value]:
    """The shares as they are, or divided by their sum."""
    shares, experts = chosen_shares(graph, n, routing, logits, dtype=dtype)
    if routing.normed:
        total = share_sum(graph, n, shares)
        shares = graph.op("Div", shares, total, name=f"layer_{n}_share_normed")
    return shares, experts


ROUTINGS: dict[type, Callable[..., tuple[Value, Value]]] = {Routing: _softmax}
"""Routing -> ((t, k) float32 weights, (t, k) int64 experts) of logits (t, x)."""
