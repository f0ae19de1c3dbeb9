"""What mixtures of experts mean: onnxruntime's operators, and the Scan that says the same.

Both become one term: every expert's score and what the chosen are the largest of, how many they
are, whether their shares are made to add up to 1, and what an expert does with a token.
Source: onnxruntime docs/ContribOperators.md (MoE, QMoE).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from converters.to_onnx.structure.graph import operators
from converters.to_onnx.structure.graph.products import named, packed
from converters.to_onnx.structure.graph.reader import MICROSOFT, Node, Reader, Rules, Value
from converters.to_onnx.structure.graph.routings import (
    Routing,
    chosen,
    filled,
    of_logits,
    routing_of,
    routing_of_logs,
    share_sum,
)
from converters.to_onnx.structure.graph.units import SILU_IN_TURN, Expert, clamped_unit, form_of
from converters.to_onnx.structure.terms import (
    BY_WEIGHT,
    EXPERTS,
    TIMES,
    TOKEN,
    WORK,
    Term,
    Terms,
)
from converters.to_onnx.weights import JOINT


def experts(terms: Terms, x: Term, routing: Routing, mlp: Term, **fields: Any) -> Term:
    """The sum over a token's experts of share * mlp. chosen: how many; normed: see above."""
    inputs = {"x": x, "scores": routing.scores, "ranks": routing.ranks, "expert": mlp}
    return terms.make(EXPERTS, inputs, chosen=routing.chosen, **fields)


def _moe(reader: Reader, node: Node) -> Sequence[Value]:
    """Its matrices, floats, are its third and fifth inputs."""
    matrices = named(node.at(2)), named(node.at(4))
    return _fused(reader, node, matrices, (3, 5), given={0, 1, 2, 3, 4, 5})


def _qmoe(reader: Reader, node: Node) -> Sequence[Value]:
    """Codes, scales, bias of the first matrices, of the last, of none, then zero points."""
    matrices = packed(node, 2, 3, 11), packed(node, 5, 6, 12)
    return _fused(reader, node, matrices, (4, 7), given={*range(8), 11, 12})


def _fused(
    reader: Reader,
    node: Node,
    matrices: tuple[str | None, str | None],
    biases: tuple[int, int],
    *,
    given: set[int],
) -> Sequence[Value]:
    """biases: where the operator has those of the first matrices and of the last."""
    x, router = node.at(0), node.at(1)
    gate, _, up = (matrices[0] or "").partition(JOINT)
    others = {n for n, value in enumerate(node.values) if value is not None} - given
    if x is None or router is None or others:
        return reader.plain(node)
    form, said = form_of(node)
    # in the type that the graph has its constants in, where a unit is spelled with them
    numbers = {name: float(np.dtype(reader.dtype).type(value)) for name, value in said.items()}
    normed = bool(node.attributes.get("normalize_routing_weights", 0))
    rest = node.rest(
        "k", "normalize_routing_weights", "expert_weight_bits", "block_size", *SILU_IN_TURN,
        *(["swiglu_limit"] if numbers else []), use_sparse_mixer=0,
    )  # fmt: skip
    both, last = (named(node.at(place)) for place in biases)
    own = (*both.split(JOINT), last) if both is not None else (None, None, last)
    expert = Expert((gate, up, matrices[1] or ""), own, form, numbers)
    mlp = expert.term(reader.terms)
    routing = _asked(reader.terms, router.term, node.attributes.get("k", 1))
    term = experts(reader.terms, x.term, routing, mlp, normed=normed, **rest)
    return [replace(x, term=term)]


def _asked(terms: Terms, router: Term, count: int) -> Routing:
    """The routing of an operator that chooses `count` experts by the softmax of `router`, which
    may be made so that another routing comes out.
    """
    routing = routing_of_logs(terms, router)
    if routing is None or routing.chosen != count:
        return of_logits(terms, router, count)
    return routing


def _times(reader: Reader, node: Node) -> Sequence[Value]:
    """A product of what is clamped, or of experts and their shares' sum, for what it is."""
    (plain,) = operators.RULES["", "Mul"](reader, node)
    found = clamped_unit(reader.terms, plain.term, reader.dtype)
    if found is not None:
        return [replace(plain, term=found)]
    return _times_their_sum(reader, node, [plain])


def _times_their_sum(reader: Reader, node: Node, plain: Sequence[Value]) -> Sequence[Value]:
    """Experts whose shares are not made to add up to 1: those that are, times the shares' sum."""
    one, other = node.at(0), node.at(1)
    if one is None or other is None or one.term.kind != EXPERTS or not one.term.fields["normed"]:
        return plain
    inputs = one.term.inputs
    routing = Routing(inputs["scores"], inputs["ranks"], one.term.fields["chosen"])
    shares, _ = chosen(reader.terms, routing)
    if other.term is not share_sum(reader.terms, shares):
        return plain
    fields = {**one.term.fields, "normed": False}
    return [replace(one, term=reader.terms.make(EXPERTS, inputs, **fields))]


def _table(terms: Terms, routing: Routing, *, normed: bool) -> Term:
    """(tokens, experts) each token's share of each expert, 0 where it has none."""
    assert routing.router is not None
    shares, which = chosen(terms, routing)
    if normed:
        shares = terms.operator("Div", shares, share_sum(terms, shares))
    zeros = filled(terms, 0.0, routing.router)
    return terms.operator("ScatterElements", zeros, which, shares, axis=1)


def _scan(reader: Reader, node: Node) -> Sequence[Value]:
    """A Scan over experts, as the term that it comes to; as an operator where it is another."""
    body, count = node.attributes.get("body"), node.attributes.get("num_scan_inputs")
    start, *scanned = node.values
    values = [value for value in scanned if value is not None]
    if (
        body is None
        or start is None
        or count != len(values)
        or len(values) < 2
        or node.rest("body", "num_scan_inputs")
    ):
        return reader.plain(node)
    state = reader.terms.make("sum so far")
    made = _body(reader, body, state, values)
    width = reader.model.stack.hidden_size
    term = _experts(reader, start, state, values, made)
    return [Value(term, width=width, last=width, rank=2)]


def _body(reader: Reader, body: Any, state: Term, scanned: Sequence[Value]) -> Term:
    """What the body makes of the state and of one entry of each scanned value."""
    entries = [
        Value(_entry(reader.terms, value.term), weight=value.weight, last=value.last)
        for value in scanned
    ]
    inputs = dict(zip((each.name for each in body.input), (Value(state), *entries), strict=True))
    return reader.inside(body, inputs)


def _entry(terms: Terms, of: Term) -> Term:
    return terms.make("entry", {"of": of})


def _experts(
    reader: Reader, start: Value, state: Term, scanned: Sequence[Value], made: Term
) -> Term:
    terms = reader.terms
    columns, marked = scanned[0].term, scanned[1].term
    scaled = columns.dig("0")
    own = dict(scaled.fields) if scaled is not None and scaled.kind == BY_WEIGHT else {}
    for x, routing, mlp in _guesses(terms, columns, made):
        token = _tokens(terms, x, _entry(terms, columns))
        work = terms.replace(mlp, terms.make(TOKEN), token)
        after = _added(terms, state, _entry(terms, columns), work)
        branches = {"condition": _entry(terms, marked), "then": after, "else": state}
        same = made is terms.make("if", branches) and start.term is filled(terms, 0.0, x)
        for normed in (True, False):
            table = _table(terms, routing, normed=normed)
            by = terms.make(BY_WEIGHT, {"x": table}, **own) if own else table
            if same and columns is _columns(terms, by) and marked is _any(terms, table):
                return experts(terms, x, routing, mlp, normed=normed, scales=own.get("weight"))
    inputs = {"start": start.term, "expert": made, "shares": columns, "chosen": marked}
    return terms.make("operator Scan", inputs)


def _guesses(terms: Terms, columns: Term, made: Term) -> Iterator[tuple[Term, Routing, Term]]:
    """(x, a routing, an expert's work) that a body may be made of."""
    shares = columns.dig("0", "2") or columns.dig("0", "x", "2")
    if shares is not None and shares.kind == "operator Div":
        shares = shares.dig("0")
    routing = routing_of(shares)
    for work in (made.dig("then", "2", "0"), made.dig("then", "2", "1")):
        token = None if work is None else _token(work)
        x = None if token is None else token.dig("0")
        if routing and routing.router and token and x and work:
            yield x, routing, terms.replace(work, token, terms.make(TOKEN))


def _token(work: Term) -> Term | None:
    """What an expert's matrices are multiplied by."""
    found: Term | None = work
    while found is not None and found.kind in WORK:
        found = found.dig("0" if found.kind == TIMES else "x")
    return found


def _columns(terms: Terms, table: Term) -> Term:
    return terms.operator("Transpose", table, perm="[1, 0]")


def _any(terms: Terms, table: Term) -> Term:
    """Whether an expert has a token."""
    first = terms.constant("int64", (1,), 0)
    total = terms.operator("ReduceSum", table, first, keepdims=0)
    return terms.operator("Cast", total, to=9)  # TensorProto.BOOL


def _places(terms: Terms, column: Term) -> Term:
    """The tokens that an expert has."""
    first = terms.constant("int64", (1,), 0)
    return terms.operator("Squeeze", terms.operator("NonZero", column), first)


def _tokens(terms: Terms, x: Term, column: Term) -> Term:
    return terms.operator("Gather", x, _places(terms, column), axis=0)


def _added(terms: Terms, state: Term, column: Term, made: Term) -> Term:
    """The state with `made`, times the tokens' shares, added in the tokens' rows."""
    places = _places(terms, column)
    last = terms.constant("int64", (1,), 1)
    shares = terms.operator("Gather", column, places, axis=0)
    weighted = terms.times(made, terms.operator("Unsqueeze", shares, last))
    rows = terms.operator("Unsqueeze", places, last)
    return terms.operator("ScatterND", state, rows, weighted, reduction="add")


def _if(reader: Reader, node: Node) -> Sequence[Value]:
    condition = node.at(0)
    branches = [node.attributes.get(f"{name}_branch") for name in ("then", "else")]
    if condition is None or None in branches or node.rest("then_branch", "else_branch"):
        return reader.plain(node)
    then, other = (reader.inside(branch, {}) for branch in branches)
    inputs = {"condition": condition.term, "then": then, "else": other}
    return [Value(reader.terms.make("if", inputs))]


def _dequantised(reader: Reader, node: Node) -> Sequence[Value]:
    """Codes of one expert as the tensor that they hold."""
    codes, scales, zeros = node.at(0), node.at(1), node.at(2)
    if codes is None or scales is None or zeros is None or node.rest("block_size", axis=1):
        return reader.plain(node)
    half = reader.terms.constant("uint8", (), 128)
    shape = reader.terms.operator("Shape", scales.term)
    middle = zeros.term is reader.terms.operator("Expand", half, shape)
    values = [codes, scales, None if middle else zeros]
    name = packed(replace(node, values=values), 0, 1, 2)
    return [Value(reader.terms.make("weight", name=name), weight=name)]


RULES: Rules = {
    ("", "Mul"): _times,
    (MICROSOFT, "MoE"): _moe,
    (MICROSOFT, "QMoE"): _qmoe,
    ("", "Scan"): _scan,
    ("", "If"): _if,
    ("", "DequantizeLinear"): _dequantised,
}
