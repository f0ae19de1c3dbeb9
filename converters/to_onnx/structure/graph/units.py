"""What one expert does with a token, in the words of onnxruntime's operators and of ai.onnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from converters.to_onnx.structure.graph.reader import Node
from converters.to_onnx.structure.terms import (
    ACTIVATION,
    CLAMP,
    CLAMPED_SILU,
    PRODUCT,
    SCALED,
    TOKEN,
    Term,
    Terms,
)

# act(gate) * up of SiLU with rows in turn, in the operators' words
SILU_IN_TURN: dict[str, Any] = {
    "activation_type": "swiglu",
    "swiglu_fusion": 1,
    "activation_alpha": 1.0,
    "activation_beta": 0.0,
}


@dataclass(frozen=True)
class Expert:
    """What an expert does. matrices: names of gate, up and down; biases: theirs; form: of its
    activation, which takes both gate and up where it has numbers.
    """

    matrices: Sequence[str]
    biases: Sequence[str | None]
    form: str
    numbers: Mapping[str, float] = field(default_factory=dict)

    def term(self, terms: Terms) -> Term:
        """down(act(gate x) * up x) of a token."""
        x = terms.make(TOKEN)
        named = zip(self.matrices, self.biases, strict=True)
        rows = [{"weight": weight, "bias": bias} for weight, bias in named]
        gates, ups = (terms.make(PRODUCT, {"x": x}, **fields) for fields in rows[:2])
        if self.numbers:
            inner = clamped(terms, gates, ups, **self.numbers)
        else:
            inner = terms.times(terms.make(ACTIVATION, {"x": gates}, form=self.form), ups)
        return terms.make(PRODUCT, {"x": inner}, **rows[2])


def form_of(node: Node) -> tuple[str, dict[str, float]]:
    """What an operator does with gate and up, and the numbers of what is clamped."""
    said = {name: node.attributes.get(name) for name in SILU_IN_TURN}
    limit, alpha = (node.attributes.get(name) for name in ("swiglu_limit", "activation_alpha"))
    plain = {**SILU_IN_TURN, "activation_alpha": alpha, "activation_beta": 1.0}
    if said == plain and alpha is not None and limit is not None:
        return CLAMPED_SILU, {"alpha": alpha, "limit": limit}
    if said == SILU_IN_TURN:
        return "silu", {}
    return ", ".join(f"{name} {value}" for name, value in said.items()), {}


def clamped(terms: Terms, gate: Term, up: Term, *, alpha: float, limit: float) -> Term:
    """(up + 1) * gate * sigmoid(alpha * gate) of what is clamped at `limit`."""
    inputs = {"x": gate, "up": up}
    return terms.make(ACTIVATION, inputs, form=CLAMPED_SILU, alpha=alpha, limit=limit)


def clamped_unit(terms: Terms, product: Term, dtype: str) -> Term | None:
    """The unit that a product is, None where it is another. dtype: of the graph's constants."""
    for one, other in (("0", "1"), ("1", "0")):
        more, less = product.dig(one), product.dig(other)
        up = None if more is None else more.dig("0", "x")
        for small, share in (("0", "1"), ("1", "0")):
            least, inner = (None, None) if less is None else (less.dig(small), less.dig(share, "0"))
            gate = None if least is None else least.dig("0")
            bound = None if more is None else more.dig("0")
            if up is None or gate is None or inner is None or bound is None:
                continue
            alpha, limit = inner.fields.get("by"), bound.fields.get("high")
            if alpha is None or limit is None:
                continue
            if product is _spelled(terms, gate, up, alpha, limit, dtype):
                return clamped(terms, gate, up, alpha=alpha, limit=limit)
    return None


def _spelled(terms: Terms, gate: Term, up: Term, alpha: float, limit: float, dtype: str) -> Term:
    """The product as blocks/mlp.py writes it."""
    gate = terms.operator("Min", gate, terms.constant(dtype, (), limit))
    up = terms.make(CLAMP, {"x": up}, low=-limit, high=limit)
    share = terms.operator("Sigmoid", terms.make(SCALED, {"x": gate}, by=alpha))
    more = terms.operator("Add", up, terms.constant(dtype, (), 1.0))
    return terms.times(more, terms.times(gate, share))
