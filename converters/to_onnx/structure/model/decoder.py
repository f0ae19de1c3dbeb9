"""A whole model as terms, one for each output of its graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from converters.to_onnx.structure.model.inputs import inputs
from converters.to_onnx.structure.model.layers import layer_terms
from converters.to_onnx.structure.model.wanted import Wanted, name_of
from converters.to_onnx.structure.terms import PRODUCT, SCALED, Term
from ropeconv.arch.blocks.head import Head


def model_terms(wanted: Wanted) -> Mapping[str, Term]:
    """Output -> its term. CannotExpress for a block that has none here."""
    stack, terms = wanted.model.stack, wanted.terms
    name = name_of(stack.embedding.weight, None)
    x = terms.make("embedding", rows="token ids", weight=name, where="token embedding")
    x = wanted.scaled(x, stack.embedding.scale, where="embedding scale")
    outputs: dict[str, Term] = {}
    given: Sequence[Term | None] = [None] * len(stack.layers)
    if stack.inputs is not None:
        given = inputs(wanted, stack.inputs, x)
    for n, layer in enumerate(stack.layers):
        handed, x = layer_terms(wanted, n, layer, x, given[n])
        outputs |= handed
    return {**outputs, "logits": _logits(wanted, stack.head, x)}


def _logits(wanted: Wanted, head: Head, x: Term) -> Term:
    stack, terms = wanted.model.stack, wanted.terms
    x = wanted.norm(x, head.norm, None, size=stack.hidden_size)
    matrix = name_of(stack.embedding.weight if head.tied else head.output.weight, None)
    bias = None if head.output.bias is None else name_of(head.output.bias, None)
    x = terms.make(PRODUCT, {"x": x}, weight=matrix, bias=bias, where="output")
    x = wanted.scaled(x, head.scale, where="logit scale")
    if not head.softcap:
        return x
    cap = wanted.constant(head.softcap)
    inner = terms.operator("Tanh", terms.make("divided", {"x": x}, by=cap, where="logit cap"))
    return terms.make(SCALED, {"x": inner}, by=cap, where="logit cap")
