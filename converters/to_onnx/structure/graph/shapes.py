"""What cuts and other views of a token's numbers mean.

Sources: onnx docs/Operators.md, onnxruntime docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from converters.to_onnx.structure.graph.reader import Node, Reader, Rules, Value
from converters.to_onnx.structure.terms import BEHIND, PART, PRODUCT, Term
from converters.to_onnx.weights import JOINT

CALLS = ((1013, 7), (1019, 11))  # sizes of ids that are told from a model's own


def _reshape(reader: Reader, node: Node) -> Sequence[Value]:
    """The same numbers in order, where tokens stay tokens."""
    x, shape = node.at(0), node.at(1)
    if x is None or shape is None or not shape.index or node.rest(allowzero=0):
        return reader.plain(node)
    dims = _dims(reader, shape.name)
    if x.weight is not None:
        return [replace(x, shape=tuple(dims))]
    last = x.width if dims[-1] == -1 else dims[-1]
    if x.width is None or not isinstance(last, int) or not _keeps_tokens(dims, x.width, last):
        return reader.plain(node)
    return [replace(x, last=last, rank=len(dims))]


def _dims(reader: Reader, name: str) -> list[int | str]:
    """A shape, with "b" and "s" for the sizes of the ids."""
    calls = [reader.indices.run([name], ids=np.zeros(call, np.int64))[0] for call in CALLS]
    sizes: dict[tuple[int, ...], str] = dict(zip(zip(*CALLS, strict=True), "bs", strict=True))
    pairs = zip(*(call.ravel().tolist() for call in calls), strict=True)
    return [pair[0] if pair[0] == pair[1] else sizes.get(pair, "?") for pair in pairs]


def _keeps_tokens(dims: Sequence[int | str], width: int, last: int) -> bool:
    """Whether (b*s, width) or (b, s, width) numbers stay the numbers of their tokens."""
    heads, rest = divmod(width, last)
    inner = [[last], [heads, last], [-1, last], [heads, -1]]
    forms = [[*first, *more] for first in ([-1], ["b", "s"]) for more in inner]
    return rest == 0 and (list(dims) in forms or list(dims) == ["b", "s", -1])


def _split(reader: Reader, node: Node) -> Sequence[Value]:
    x, sizes = node.at(0), node.at(1)
    axis = node.attributes.get("axis", 0)
    given = None if sizes is None else reader.indices.constant(sizes.name)
    along_rows = x is not None and axis in (-1, (x.rank or 0) - 1)
    if x is None or given is None or not along_rows or node.rest("axis"):
        return reader.plain(node)
    ends = np.cumsum(given).tolist()
    return [_cut(reader, x, end - int(n), end) for n, end in zip(given, ends, strict=True)]


def _cut(reader: Reader, x: Value, start: int, stop: int) -> Value:
    """Some of the last axis: the product of one tensor where they are that tensor's rows."""
    rank, size = x.rank, stop - start
    if x.last == x.width and x.term.kind == PRODUCT:
        one = _one_product(reader, x.term, start, stop)
        if one is not None:
            return Value(one, width=size, last=size, rank=rank)
    of = None if x.last == x.width else x.last
    term = reader.terms.make(PART, {"x": x.term}, first=start, last=stop - 1, of_each=of)
    groups = (x.width or 0) // (x.last or 1)
    return Value(term, width=groups * size, last=size, rank=rank)


def _one_product(reader: Reader, term: Term, start: int, stop: int) -> Term | None:
    fields = dict(term.fields)
    weight, bias = fields.pop("weight"), fields.pop("bias", None)
    parts = reader.parts(weight)
    if len(parts) < 2:
        return None
    biases = [None] * len(parts) if bias is None else bias.split(JOINT)
    if len(biases) != len(parts):
        return None
    for (name, first, end), own in zip(parts, biases, strict=True):
        if (first, end) == (start, stop):
            return reader.terms.make(PRODUCT, term.inputs, weight=name, bias=own, **fields)
    return None


def _concat(reader: Reader, node: Node) -> Sequence[Value]:
    """Vectors one after the other, or what a token has of several values."""
    if node.attributes.get("axis") == -1:
        return _behind(reader, node)
    names = [None if value is None else value.weight for value in node.values]
    if None in names or node.rest(axis=0):
        return reader.plain(node)
    term = reader.terms.make("weight", name=JOINT.join(map(str, names)))
    return [Value(term, weight=JOINT.join(map(str, names)))]


def _behind(reader: Reader, node: Node) -> Sequence[Value]:
    values = [value for value in node.values if value is not None and value.rank == 3]
    widths = [value.width for value in values if value.width and value.last == value.width]
    if len(widths) < len(node.values) or node.rest("axis"):
        return reader.plain(node)
    inputs = {str(place): value.term for place, value in enumerate(values)}
    width = sum(widths)
    return [Value(reader.terms.make(BEHIND, inputs), width=width, last=width, rank=3)]


RULES: Rules = {
    ("", "Reshape"): _reshape,
    ("", "Split"): _split,
    ("", "Concat"): _concat,
}
