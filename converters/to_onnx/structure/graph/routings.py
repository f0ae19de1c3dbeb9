"""Which experts a graph sends a token to, and with which shares: the nodes of a routing as one
thing, and the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

from converters.to_onnx.structure.graph.reader import Node, Reader, Rules, Value
from converters.to_onnx.structure.terms import Term, Terms
from ropeconv.arch.blocks.moe import Groups

BOOL = 9  # of TensorProto.DataType
NEVER = -1e4  # stands for the logits of experts that are not chosen


@dataclass(frozen=True)
class Routing:
    """The `chosen` experts with the largest `ranks`; their shares are their `scores`, over all
    experts both.
    """

    scores: Term
    ranks: Term
    chosen: int

    @property
    def router(self) -> Term | None:
        """The logits that scores, or scores plus a bias, are made of."""
        return (self.scores.dig("x") or self.scores).dig("0")


def of_logits(terms: Terms, router: Term, count: int) -> Routing:
    """What operators do with logits of their own accord."""
    shares = terms.operator("Softmax", router, axis=-1)
    return Routing(shares, shares, count)


def chosen(terms: Terms, routing: Routing) -> tuple[Term, Term]:
    """(the scores of a token's experts, which they are)."""
    count = terms.constant("int64", (1,), routing.chosen)
    top = terms.operator("TopK", routing.ranks, count, axis=-1)
    which = terms.make("output 1", {"of": top})
    if routing.ranks is routing.scores:
        return top, which
    return terms.operator("GatherElements", routing.scores, which, axis=-1), which


def in_groups(terms: Terms, ranks: Term, groups: Groups) -> Term:
    """Ranks that are minus infinity outside of the groups that are chosen."""
    shape = terms.constant("int64", (3,), -1, groups.count, groups.size)
    rows = terms.operator("Reshape", ranks, shape)
    best = terms.operator("TopK", rows, terms.constant("int64", (1,), groups.best), axis=-1)
    last = terms.constant("int64", (1,), -1)
    totals = terms.operator("ReduceSum", best, last, keepdims=0)
    count = terms.constant("int64", (1,), groups.chosen)
    top = terms.operator("TopK", totals, count, axis=-1)
    which = terms.make("output 1", {"of": top})
    none, every = filled(terms, 0.0, totals), filled(terms, 1.0, which)
    mask = terms.operator("ScatterElements", none, which, every, axis=-1)
    seen = terms.operator("Cast", terms.operator("Unsqueeze", mask, last), to=BOOL)
    kept = terms.operator("Where", seen, rows, terms.constant("float32", (), -inf))
    return terms.operator("Reshape", kept, terms.operator("Shape", ranks))


def routing_of(shares: Term | None) -> Routing | None:
    """The routing whose chosen scores these may be."""
    if shares is None:
        return None
    top, scores = shares, shares.dig("0")
    if shares.kind == "operator GatherElements":
        top = shares.dig("1", "of") or shares
    ranks, count = top.dig("0"), top.dig("1")
    if top.kind != "operator TopK" or scores is None or ranks is None or count is None:
        return None
    numbers = list(count.fields.get("values", ()))
    return Routing(scores, ranks, numbers[0]) if len(numbers) == 1 else None


def share_sum(terms: Terms, shares: Term) -> Term:
    """What the shares of a token add up to."""
    return terms.operator("ReduceSum", shares, terms.constant("int64", (1,), -1), keepdims=1)


def filled(terms: Terms, value: float, like: Term) -> Term:
    """A value as often as `like` has numbers."""
    constant = terms.constant("float32", (), value)
    return terms.operator("Expand", constant, terms.operator("Shape", like))


def routing_of_logs(terms: Terms, logs: Term) -> Routing | None:
    """The routing whose shares the softmax of `logs` are, made to add up to 1."""
    routing = routing_of(logs.dig("2", "0", "0"))
    if routing is None or routing.router is None or logs is not _logs(terms, routing):
        return None
    return routing


def _logs(terms: Terms, routing: Routing) -> Term:
    assert routing.router is not None
    shares, which = chosen(terms, routing)
    logs = terms.operator("Log", shares)
    top = terms.operator("ReduceMax", logs, terms.constant("int64", (1,), -1), keepdims=1)
    others = filled(terms, NEVER, routing.router)
    less = terms.operator("Sub", logs, top)
    return terms.operator("ScatterElements", others, which, less, axis=-1)


def _gathered(reader: Reader, node: Node) -> Sequence[Value]:
    """The largest themselves, where they are taken from what they are the largest of."""
    (made,) = reader.plain(node)
    which = made.term.dig("1")
    top = None if which is None or which.kind != "output 1" else which.dig("of")
    if top is None or top.kind != "operator TopK" or top.dig("0") is not made.term.dig("0"):
        return [made]
    if made.term.fields != {"axis": top.fields.get("axis")}:
        return [made]
    return [replace(made, term=top)]


def _scattered(reader: Reader, node: Node) -> Sequence[Value]:
    """A number for every expert, where it is known how many the router has."""
    (made, *_) = reader.plain(node)
    routing = routing_of_logs(reader.terms, made.term)
    router = None if routing is None else routing.router
    weight = None if router is None else router.fields.get("weight")
    count = None if weight is None else reader.rows(weight)
    return [replace(made, width=count, last=count)]


def _reciprocal(reader: Reader, node: Node) -> Sequence[Value]:
    """1 / (1 + e^-x) is the sigmoid of x."""
    terms = reader.terms
    (made,) = reader.plain(node)
    x = made.term.dig("0", "0", "0", "0")
    if x is None:
        return [made]
    power = terms.operator("Exp", terms.operator("Neg", x))
    total = terms.operator("Add", power, terms.constant("float32", (), 1.0))
    if made.term is not terms.operator("Reciprocal", total):
        return [made]
    return [replace(made, term=terms.operator("Sigmoid", x))]


RULES: Rules = {
    ("", "Reciprocal"): _reciprocal,
    ("", "GatherElements"): _gathered,
    ("", "ScatterElements"): _scattered,
}
