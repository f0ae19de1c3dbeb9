"""What sums, products of values, multiples, activations and casts mean.

Sources: onnx docs/Operators.md, onnxruntime docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from converters.to_onnx.structure.graph.reader import Node, Reader, Rules, Value
from converters.to_onnx.structure.terms import (
    ACTIVATION,
    BY_WEIGHT,
    CLAMP,
    MASKED,
    PLUS_WEIGHT,
    PRODUCT,
    SCALED,
    TEMPERED,
)

FLOATS = {1: "float32", 10: "float16"}  # of TensorProto.DataType


def _add(reader: Reader, node: Node) -> Sequence[Value]:
    a, b = node.at(0), node.at(1)
    if a is None or b is None or a.index or b.index or a.weight or node.rest():
        return reader.plain(node)
    if b.weight is None:
        return [replace(a, term=reader.terms.add(a.term, b.term))]
    if a.term.kind != PRODUCT or "bias" in a.term.fields:
        return [_with_weight(reader, PLUS_WEIGHT, a, b)]
    fields = {**a.term.fields, "bias": b.weight}
    return [replace(a, term=reader.terms.make(PRODUCT, a.term.inputs, **fields))]


def _mul(reader: Reader, node: Node) -> Sequence[Value]:
    """A number's multiple, x * sigmoid(x), or two values element by element."""
    a, b = node.at(0), node.at(1)
    if a is None or b is None or a.index or a.weight or node.rest():
        return reader.plain(node)
    if b.weight is not None:
        return [_with_weight(reader, BY_WEIGHT, a, b)]
    if b.index:
        return [_multiple(reader, a, b)]
    if b.term is reader.terms.operator("Sigmoid", a.term):
        return [replace(a, term=reader.terms.make(ACTIVATION, {"x": a.term}, form="silu"))]
    return [replace(a, term=reader.terms.times(a.term, b.term))]


def _with_weight(reader: Reader, kind: str, x: Value, own: Value) -> Value:
    """x with a tensor's numbers, one an element of its last axes. of: the tensor's shape."""
    term = reader.terms.make(kind, {"x": x.term}, weight=own.weight, of=own.shape)
    return replace(x, term=term)


def _multiple(reader: Reader, x: Value, by: Value) -> Value:
    number = reader.constant(by)
    if number is not None:
        return replace(x, term=reader.terms.make(SCALED, {"x": x.term}, by=number))
    if reader.masks.real(by.name):
        return replace(x, term=reader.terms.make(MASKED, {"x": x.term}))
    name = reader.temperatures.found(by.name)
    return replace(x, term=reader.terms.make(TEMPERED, {"x": x.term}, by=name))


def _clip(reader: Reader, node: Node) -> Sequence[Value]:
    x, (low, high) = node.at(0), (reader.constant(node.at(place)) for place in (1, 2))
    if x is None or low is None or high is None:
        return reader.plain(node)
    return [replace(x, term=reader.terms.make(CLAMP, {"x": x.term}, low=low, high=high))]


def _div(reader: Reader, node: Node) -> Sequence[Value]:
    a, by = node.at(0), reader.constant(node.at(1))
    if a is None or by is None or node.rest():
        return reader.plain(node)
    return [replace(a, term=reader.terms.make("divided", {"x": a.term}, by=by))]


GELU = {"none": "gelu", "tanh": "gelu by tanh"}


def _gelu(reader: Reader, node: Node) -> Sequence[Value]:
    x = node.at(0)
    if x is None or node.rest("approximate"):
        return reader.plain(node)
    form = GELU.get(node.attributes.get("approximate", "none"), "another gelu")
    return [replace(x, term=reader.terms.make(ACTIVATION, {"x": x.term}, form=form))]


def _cast(reader: Reader, node: Node) -> Sequence[Value]:
    """Nothing, where no number becomes coarser than the graph's own floats are."""
    x = node.at(0)
    if x is not None and FLOATS.get(node.attributes.get("to", 0)) in ("float32", reader.dtype):
        return [x]
    return _elementwise(reader, node)


def _same(reader: Reader, node: Node) -> Sequence[Value]:
    x = node.at(0)
    return reader.plain(node) if x is None else [x]


ELEMENTWISE = ("Tanh", "Sigmoid", "Relu", "Softplus", "Exp", "Min", "Sub", "Greater", "Neg")


def _elementwise(reader: Reader, node: Node) -> Sequence[Value]:
    x = node.at(0)
    return (
        reader.plain(node)
        if x is None
        else [replace(x, term=reader.plain(node)[0].term, weight=None)]
    )


RULES: Rules = {
    ("", "Add"): _add,
    ("", "Mul"): _mul,
    ("", "Div"): _div,
    ("", "Gelu"): _gelu,
    ("", "Cast"): _cast,
    ("", "Identity"): _same,
    ("", "Clip"): _clip,
    **{("", name): _elementwise for name in ELEMENTWISE},
}
