"""What is done to every head of q, k and v: parts joined, one part for all heads, zeros behind.

Source: onnx docs/Operators.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from converters.to_onnx.structure.graph import attention, convolutions
from converters.to_onnx.structure.graph.reader import (
    MICROSOFT,
    Node,
    Reader,
    Rule,
    Rules,
    Value,
)
from converters.to_onnx.structure.terms import JOINED, REPEATED

ATTENTIONS = ((MICROSOFT, "GroupQueryAttention"), ("", "Attention"))
WIDENED = "values with zeros behind"


def _concat(reader: Reader, node: Node) -> Sequence[Value]:
    """(t, h, one) and (t, h, other) head by head."""
    one, other = node.at(0), node.at(1)
    by_head = [
        value for value in (one, other) if value and value.rank == 3 and value.last and value.width
    ]
    fits = len(by_head) == 2 == len(node.values) and not node.rest(axis=2)
    if one is None or other is None or not fits or one.weight or other.weight:
        return convolutions.RULES["", "Concat"](reader, node)
    sizes = [(value.last or 0, (value.width or 0) // (value.last or 1)) for value in by_head]
    (first, heads), (second, others) = sizes
    if heads != others:
        return reader.plain(node)
    inputs = {"first": one.term, "second": other.term}
    term = reader.terms.make(JOINED, inputs, first_of_each=first, second_of_each=second)
    size = first + second
    return [Value(term, width=heads * size, last=size, rank=3)]


def _expand(reader: Reader, node: Node) -> Sequence[Value]:
    """(t, 1, r) for every head."""
    x, shape = node.at(0), node.at(1)
    found = None if shape is None or not shape.index else reader.indices.constant(shape.name)
    times = [] if found is None else found.ravel().tolist()
    one_head = x is not None and x.rank == 3 and x.last is not None and x.last == x.width
    if x is None or not one_head or len(times) != 3 or [times[0], times[2]] != [1, 1]:
        return reader.plain(node)
    term = reader.terms.make(REPEATED, {"x": x.term}, times=times[1])
    return [replace(x, term=term, width=(x.last or 0) * times[1], weight=None)]


def _pad(reader: Reader, node: Node) -> Sequence[Value]:
    """Zeros behind every head's values."""
    x, pads = node.at(0), node.at(1)
    found = None if pads is None or not pads.index else reader.indices.constant(pads.name)
    given = [] if found is None else found.ravel().tolist()
    known = x is not None and x.rank == 3 and x.last and x.width and len(given) == 6
    if x is None or not known or any(given[:5]) or node.at(2) or node.rest(mode="constant"):
        return reader.plain(node)
    return [_widened(reader, x, given[5])]


def _widened(reader: Reader, x: Value, by: int) -> Value:
    last, width = x.last or 1, x.width or 0
    term = reader.terms.make(WIDENED, {"x": x.term}, of_each=last, by=by)
    return replace(x, term=term, width=width // last * (last + by), last=last + by)


def _attending(plain: Rule) -> Rule:
    """With values that have zeros behind them: what is gathered of them has as many."""

    def rule(reader: Reader, node: Node) -> Sequence[Value]:
        v = node.at(2)
        if v is None or v.term.kind != WIDENED:
            return plain(reader, node)
        inner = replace(v, term=v.term.inputs["x"])
        node = replace(node, values=[*node.values[:2], inner, *node.values[3:]])
        y, *caches = plain(reader, node)
        size, by = (v.term.fields[name] for name in ("of_each", "by"))
        heads = (y.width or 0) // (size + by)
        return [_widened(reader, replace(y, width=heads * size, last=size), by), *caches]

    return rule


def _slice(reader: Reader, node: Node) -> Sequence[Value]:
    """Every head without the zeros behind it."""
    x = node.at(0)
    if x is None or x.term.kind != WIDENED or x.rank != 3:
        return convolutions.RULES["", "Slice"](reader, node)
    size = x.term.fields["of_each"]
    ends = [reader.constant(node.at(place)) for place in range(1, 4)]
    if ends != [0, size, 2] or node.at(4) or x.last != size + x.term.fields["by"]:
        return reader.plain(node)
    heads = (x.width or 0) // (x.last or 1)
    return [Value(x.term.inputs["x"], width=heads * size, last=size, rank=3)]


RULES: Rules = {
    ("", "Concat"): _concat,
    ("", "Expand"): _expand,
    ("", "Pad"): _pad,
    ("", "Slice"): _slice,
    **{key: _attending(attention.RULES[key]) for key in ATTENTIONS},
}
