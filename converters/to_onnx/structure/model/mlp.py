"""Feed-forward blocks and mixtures of experts as terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from converters.to_onnx.blocks import find
from converters.to_onnx.structure.graph import routings
from converters.to_onnx.structure.graph.experts import experts
from converters.to_onnx.structure.graph.units import Expert
from converters.to_onnx.structure.model.wanted import Wanted, name_of, place_of
from converters.to_onnx.structure.terms import ACTIVATION, BY_WEIGHT, PART, PLUS_WEIGHT, Term, Terms
from converters.to_onnx.weights import EVERY
from ropeconv.arch.blocks.mlp import FusedGatedMlp, GatedMlp, PlainMlp
from ropeconv.arch.blocks.moe import MixtureOfExperts, RouterInput, Routing, Scores, SharedExpert
from ropeconv.arch.blocks.weight import Weight
from ropeconv.errors import CannotExpress

T = TypeVar("T")
# what an activation's name means: transformers activations.py
FORMS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu by tanh",
    "gelu_fast": "gelu by tanh",
    "gelu_pytorch_tanh": "gelu by tanh",
}


def active(wanted: Wanted, n: int, name: str, x: Term) -> Term:
    """The activation of x."""
    if name in FORMS:
        where = place_of(n, "activation")
        return wanted.terms.make(ACTIVATION, {"x": x}, form=FORMS[name], where=where)
    return _named(SQUARES, name)(wanted, x)


def _named(table: Mapping[str, T], name: str) -> T:
    if name not in table:
        raise CannotExpress(f"the structure of a graph with activation {name!r} cannot be judged")
    return table[name]


def _squared_relu(wanted: Wanted, x: Term) -> Term:
    positive = wanted.terms.operator("Relu", x)
    return wanted.terms.times(positive, positive)


SQUARES: dict[str, Callable[[Wanted, Term], Term]] = {"relu2": _squared_relu}


def _xielu(wanted: Wanted, n: int, weights: Sequence[Weight], x: Term) -> Term:
    """p x^2 + b x above 0, else (e^min(x, eps) - 1 - x) n + b x (arXiv 2411.13010)."""
    terms = wanted.terms
    p, q, b, eps = (name_of(weight, n) for weight in weights)
    shapes = dict(zip((p, q, b, eps), (weight.shape for weight in weights), strict=True))
    tensors = {name: terms.make("weight", name=name) for name in shapes}
    slope = terms.operator("Softplus", tensors[p])
    other = terms.operator("Softplus", tensors[q])
    other = terms.make(PLUS_WEIGHT, {"x": other}, weight=b, of=shapes[b])
    square = terms.times(terms.times(x, x), slope)
    power = terms.operator("Exp", terms.operator("Min", x, tensors[eps]))
    less = terms.operator("Sub", power, terms.constant("float32", (), 1.0))
    below = terms.times(terms.operator("Sub", less, x), other)
    above = terms.operator("Greater", x, terms.constant("float32", (), 0.0))
    line = terms.make(BY_WEIGHT, {"x": x}, weight=b, of=shapes[b])
    return terms.add(terms.operator("Where", above, square, below), line)


LEARNED: dict[str, Callable[[Wanted, int, Sequence[Weight], Term], Term]] = {"xielu": _xielu}


def _gated(wanted: Wanted, n: int, block: GatedMlp, x: Term) -> Term:
    gate, up = wanted.linear(x, block.gate, n), wanted.linear(x, block.up, n)
    inner = wanted.terms.times(active(wanted, n, block.activation, gate), up)
    return wanted.linear(inner, block.down, n)


def _fused_gated(wanted: Wanted, n: int, block: FusedGatedMlp, x: Term) -> Term:
    both = wanted.linear(x, block.gate_up, n)
    half = block.down.weight.shape[1]
    gate, up = (
        wanted.terms.make(
            PART, {"x": both}, first=start, last=start + half - 1, where=place_of(n, part)
        )
        for part, start in (("gate", 0), ("up", half))
    )
    inner = wanted.terms.times(active(wanted, n, block.activation, gate), up)
    return wanted.linear(inner, block.down, n)


def _plain(wanted: Wanted, n: int, block: PlainMlp, x: Term) -> Term:
    inner = wanted.linear(x, block.up, n)
    if block.learned:
        inner = _named(LEARNED, block.activation)(wanted, n, block.learned, inner)
    else:
        inner = active(wanted, n, block.activation, inner)
    return wanted.linear(inner, block.down, n)


def _mixture(wanted: Wanted, n: int, block: MixtureOfExperts, x: Term) -> Term:
    term = experts_alone(wanted, n, block, x, x)
    if block.shared is None:
        return term
    return wanted.terms.add(term, shared_alone(wanted, n, block.shared, x))


def experts_alone(wanted: Wanted, n: int, block: MixtureOfExperts, x: Term, stream: Term) -> Term:
    """The experts' part. stream: what the router reads, if it reads no x."""
    read = x if block.router_input is None else _read(wanted, n, block.router_input, stream)
    routing = find(ROUTINGS, block.routing)(wanted, n, block, read)
    expert = _expert(wanted, n, block).term(wanted.terms)
    own = block.routing.expert_scales
    scales = None if own is None else name_of(own, n)
    term = experts(wanted.terms, x, routing, expert, normed=block.routing.normed, scales=scales)
    wanted.terms.where.setdefault(term, place_of(n, "experts"))
    return wanted.scaled(term, block.routing.scale, where=place_of(n, "experts' scale"))


def _read(wanted: Wanted, n: int, block: RouterInput, stream: Term) -> Term:
    """The residual stream as a router reads it."""
    name = name_of(block.scale, n)
    y = wanted.norm(stream, block.norm, n, size=wanted.hidden)
    fields: dict[str, Any] = {"weight": name, "of": block.scale.shape}
    y = wanted.terms.make(BY_WEIGHT, {"x": y}, where=name, **fields)
    return wanted.scaled(y, block.shrink, where=place_of(n, "what the router reads"))


def _expert(wanted: Wanted, n: int, block: MixtureOfExperts) -> Expert:
    matrices = [name_of(weight, n, EVERY) for weight in (block.gate, block.up, block.down)]
    biases: list[str | None] = [name_of(weight, n, EVERY) for weight in block.biases]
    said = {} if block.unit is None else {"alpha": block.unit.alpha, "limit": block.unit.limit}
    unit = {name: wanted.constant(value) for name, value in said.items()}
    return Expert(matrices, biases or [None] * len(matrices), _named(FORMS, block.activation), unit)


def _routing(wanted: Wanted, n: int, block: MixtureOfExperts, x: Term) -> routings.Routing:
    """What experts are scored with and chosen by."""
    terms, routing = wanted.terms, block.routing
    router = wanted.linear(x, block.router, n)
    scores = ranks = SCORES[routing.scores](terms, router)
    terms.where.setdefault(scores, place_of(n, "router scores"))
    if routing.bias is not None:
        name = name_of(routing.bias, n)
        ranks = terms.make(
            PLUS_WEIGHT, {"x": scores}, weight=name, of=routing.bias.shape, where=name
        )
    if routing.groups is not None:
        ranks = routings.in_groups(terms, ranks, routing.groups)
        terms.where.setdefault(ranks, place_of(n, "groups of experts"))
    return routings.Routing(scores, ranks, routing.chosen)


def shared_alone(wanted: Wanted, n: int, block: SharedExpert, x: Term) -> Term:
    """What every token gets."""
    y = find(FEEDS, block.mlp)(wanted, n, block.mlp, x)
    if block.gate is None:
        return y
    share = wanted.terms.operator("Sigmoid", wanted.linear(x, block.gate, n))
    return wanted.terms.times(y, share, where=place_of(n, "shared expert's gate"))


SCORES: dict[Scores, Callable[[Terms, Term], Term]] = {
    Scores.SOFTMAX: lambda terms, router: terms.operator("Softmax", router, axis=-1),
    Scores.SIGMOID: lambda terms, router: terms.operator("Sigmoid", router),
}
ROUTINGS: dict[type, Callable[[Wanted, int, MixtureOfExperts, Term], routings.Routing]] = {
    Routing: _routing,
}
FEEDS: dict[type, Callable[[Wanted, int, Any, Term], Term]] = {
    GatedMlp: _gated,
    FusedGatedMlp: _fused_gated,
    PlainMlp: _plain,
    MixtureOfExperts: _mixture,
}
"""Block -> its term of (the normed) x."""
