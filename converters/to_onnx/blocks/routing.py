"""Which experts a token goes to, and with which weights.

Scores and the bias that they are chosen with are float32 in every type: half the digits would send
tokens elsewhere. Shape letters: t tokens (b*s), x experts, k chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from converters.to_onnx.blocks.frame import Decoder, name_of
from converters.to_onnx.graph import Value
from ropeconv.arch.blocks.moe import Groups, Routing, Scores

SINGLE = "float32"
# e^this is 0 beside e^0, and float16 has it
NEVER = -1e4


def is_plain(routing: Routing) -> bool:
    """Whether experts are the largest of a softmax, which is how runtimes' operators choose."""
    own = routing.scores is Scores.SIGMOID or routing.bias is not None
    return not own and routing.groups is None


def chosen_scores(decoder: Decoder, n: int, routing: Routing, logits: Value) -> tuple[Value, Value]:
    """((..., k) float32 scores, (..., k) int64 experts) of logits (..., x)."""
    graph = decoder.graph
    if decoder.store.kind.dtype != SINGLE:
        logits = graph.cast(logits, SINGLE, name=f"layer_{n}_router_single")
    scores = _scores(decoder, n, routing, logits)
    count = graph.ints(routing.chosen)
    ranks = scores
    if routing.bias is not None:
        bias = decoder.store.vector(name_of(routing.bias, n), dtype=SINGLE)
        ranks = graph.op("Add", scores, bias, name=f"layer_{n}_router_ranks")
    if routing.groups is not None:
        ranks = _in_groups(decoder, n, routing.groups, ranks)
    names = (f"layer_{n}_share", f"layer_{n}_expert")
    values, experts = graph.ops("TopK", (ranks, count), names, axis=-1)
    if ranks is not scores:
        values = graph.op("GatherElements", scores, experts, name=names[0], axis=-1)
    return values, experts


def _in_groups(decoder: Decoder, n: int, groups: Groups, ranks: Value) -> Value:
    """(..., x) ranks, minus infinity outside of the chosen groups.

    Shape letters beside the module's: g groups.
    """
    graph, name = decoder.graph, f"layer_{n}_group"
    rows = graph.op("Reshape", ranks, graph.ints(-1, groups.count, groups.size), name=f"{name}s")
    names = (f"{name}_best", f"{name}_places")
    best, _ = graph.ops("TopK", (rows, graph.ints(groups.best)), names, axis=-1)
    totals = graph.op("ReduceSum", best, graph.ints(-1), name=f"{name}_ranks", keepdims=0)
    names = (f"{name}_top", f"{name}_chosen")
    _, chosen = graph.ops("TopK", (totals, graph.ints(groups.chosen)), names, axis=-1)
    none, every = (
        _like(decoder, of, value, name=f"{name}_{word}")
        for of, value, word in ((totals, 0, "none"), (chosen, 1, "every"))
    )
    mask = graph.op("ScatterElements", none, chosen, every, name=f"{name}_mask", axis=-1)
    mask = graph.op("Unsqueeze", mask, graph.ints(-1), name=f"{name}_mask")
    seen = graph.cast(mask, "bool", name=f"{name}_mask")
    never = graph.constant(-inf, SINGLE, name="not_in_group")
    kept = graph.op("Where", seen, rows, never, name=f"{name}_kept")
    shape = graph.op("Shape", ranks, name=f"{name}_shape")
    return graph.op("Reshape", kept, shape, name=f"{name}_kept")


def _like(decoder: Decoder, of: Value, value: int, *, name: str) -> Value:
    """A number as often as `of` has some."""
    graph = decoder.graph
    constant = graph.constant(value, SINGLE, name=f"single_{value}")
    return graph.op("Expand", constant, graph.op("Shape", of, name=f"{name}_shape"), name=name)


def _scores(decoder: Decoder, n: int, routing: Routing, logits: Value) -> Value:
    graph, name = decoder.graph, f"layer_{n}_router_shares"
    if routing.scores is Scores.SOFTMAX:
        return graph.op("Softmax", logits, name=name, axis=-1)
    # onnxruntime's Sigmoid has no digits below -18, and shares are quotients of such scores
    inner = graph.op("Exp", graph.op("Neg", logits, name=f"{name}_neg"), name=f"{name}_exp")
    one = graph.constant(1, SINGLE, name="one")
    return graph.op("Reciprocal", graph.op("Add", inner, one, name=f"{name}_sum"), name=name)


def share_sum(decoder: Decoder, n: int, shares: Value) -> Value:
    """(..., 1) what the shares of a token's experts add up to."""
    axes = decoder.graph.ints(-1)
    return decoder.graph.op("ReduceSum", shares, axes, name=f"layer_{n}_share_sum", keepdims=1)


def log_shares(decoder: Decoder, n: int, logits: Value, shares: Value, experts: Value) -> Value:
    """(..., x) of the type of the activations: numbers whose softmax is the shares of a token's
    experts, which add up to 1 then, and 0 for the others.

    The largest is 0, where float16 is finest.
    """
    graph, dtype = decoder.graph, decoder.store.kind.dtype
    logs = graph.op("Log", shares, name=f"layer_{n}_share_log")
    top = graph.op("ReduceMax", logs, graph.ints(-1), name=f"layer_{n}_share_top", keepdims=1)
    logs = graph.op("Sub", logs, top, name=f"layer_{n}_share_log")
    shape = graph.op("Shape", logits, name=f"layer_{n}_router_shape")
    never = graph.constant(NEVER, SINGLE, name="never")
    others = graph.op("Expand", never, shape, name=f"layer_{n}_router_others")
    name = f"layer_{n}_router_logs"
    table = graph.op("ScatterElements", others, experts, logs, name=name, axis=-1)
    return table if dtype == SINGLE else graph.cast(table, dtype, name=name)


def _weights(decoder: Decoder, n: int, routing: Routing, logits: Value) -> tuple[Value, Value]:
    """The scores as they are, or divided by their sum."""
    shares, experts = chosen_scores(decoder, n, routing, logits)
    if routing.normed:
        total = share_sum(decoder, n, shares)
        shares = decoder.graph.op("Div", shares, total, name=f"layer_{n}_share_normed")
    return shares, experts


Route = Callable[[Decoder, int, Routing, Value], tuple[Value, Value]]
ROUTINGS: dict[type, Route] = {Routing: _weights}
"""Routing -> ((t, k) float32 weights, (t, k) int64 experts) of logits (t, x), before its scale."""
