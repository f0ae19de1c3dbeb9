"""What convolutions over tokens and states mean: each channel by itself, what past calls left
before it.

Sources: onnx docs/Operators.md (Conv), onnxruntime docs/ContribOperators.md (CausalConvWithState,
LinearAttention).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from converters.to_onnx.structure.graph import attention, shapes
from converters.to_onnx.structure.graph.products import named
from converters.to_onnx.structure.graph.reader import MICROSOFT, Node, Reader, Rules, Value
from converters.to_onnx.structure.terms import CONVOLUTION, RECURRENCE, RECURRENT, STATE, Term

TRANSPOSED, CONTINUED = "channels first", "tokens behind the past ones"
CHANNELS_FIRST = str([0, 2, 1])
LAST = 2**63 - 1


def _transpose(reader: Reader, node: Node) -> Sequence[Value]:
    """(b, s, channels) as (b, channels, s), and back."""
    x = node.at(0)
    if x is None or x.rank != 3 or node.attributes.get("perm") != CHANNELS_FIRST:
        return reader.plain(node)
    if x.term.kind == TRANSPOSED:
        return [Value(x.term.inputs["x"], width=x.width, last=x.width, rank=3)]
    term = reader.terms.make(TRANSPOSED, {"x": x.term})
    return [Value(term, width=x.width, rank=3)]


def _causal(reader: Reader, node: Node) -> Sequence[Value]:
    """onnxruntime's, with its own state."""
    x, weight, bias, past = (node.at(place) for place in range(4))
    if x is None or weight is None or past is None or x.term.kind != TRANSPOSED:
        return reader.plain(node)
    idle = {"ndim": 1, "dilation": 1, "channels_last": 0, "state_window": 0}
    rest = node.rest("activation", **idle)
    inputs = {"x": x.term.inputs["x"], "past": past.term}
    form = node.attributes.get("activation", "none")
    y = _convolution(reader, inputs, weight, bias, x, form=form, **rest)
    return [y, _state(reader, inputs, weight)]


def _concat(reader: Reader, node: Node) -> Sequence[Value]:
    past, x = node.at(0), node.at(1)
    if past is None or x is None or x.term.kind != TRANSPOSED or node.rest(axis=2):
        return shapes.RULES["", "Concat"](reader, node)
    inputs = {"x": x.term.inputs["x"], "past": past.term}
    return [Value(reader.terms.make(CONTINUED, inputs), width=x.width, rank=3)]


def _conv(reader: Reader, node: Node) -> Sequence[Value]:
    """ai.onnx's, over past tokens and new ones."""
    x, weight, bias = (node.at(place) for place in range(3))
    if x is None or weight is None or x.term.kind != CONTINUED:
        return reader.plain(node)
    group = weight.shape[0] if weight.shape else None
    rest = node.rest(group=group)
    return [_convolution(reader, x.term.inputs, weight, bias, x, form="none", **rest)]


def _slice(reader: Reader, node: Node) -> Sequence[Value]:
    """The last tokens, which the next call takes for past ones."""
    x = node.at(0)
    start, stop, axis = (reader.constant(node.at(place)) for place in range(1, 4))
    known = stop == LAST and axis == 2 and node.at(4) is None and isinstance(start, int)
    if x is None or x.term.kind != CONTINUED or not known:
        return attention.RULES["", "Slice"](reader, node)
    return [Value(reader.terms.make(STATE, x.term.inputs, kept=-start))]


def _convolution(
    reader: Reader,
    inputs: Any,
    weight: Value,
    bias: Value | None,
    x: Value,
    *,
    form: str,
    **rest: Any,
) -> Value:
    own = None if bias is None else named(bias)
    y: Term = reader.terms.make(CONVOLUTION, inputs, weight=named(weight), bias=own, **rest)
    if form != "none":
        kind = "silu" if form in ("silu", "swish") else form
        y = reader.terms.make("activation", {"x": y}, form=kind)
    return Value(reader.terms.make(TRANSPOSED, {"x": y}), width=x.width, rank=3)


def _state(reader: Reader, inputs: Any, weight: Value) -> Value:
    taps = weight.shape[-1] if weight.shape else 0
    kept = taps - 1 if isinstance(taps, int) else None
    return Value(reader.terms.make(STATE, inputs, kept=kept))


def _recurrence(reader: Reader, node: Node) -> Sequence[Value]:
    """onnxruntime's LinearAttention, and its state."""
    roles = dict(zip(("q", "k", "v", "past", "decay", "share"), range(6), strict=True))
    values = {role: node.at(place) for role, place in roles.items()}
    inputs = {role: value.term for role, value in values.items() if value is not None}
    read = ("q_num_heads", "kv_num_heads", "scale")
    numbers = {name: node.attributes.get(name) for name in read}
    rule = node.attributes.get("update_rule", "gated_delta")
    rest = node.rest(*read, "update_rule", "chunk_size", state_window=0)
    y = reader.terms.make(RECURRENCE, inputs, rule=rule, **numbers, **rest)
    width = None if values["v"] is None else values["v"].width
    state = reader.terms.make(RECURRENT, {"of": y})
    return [Value(y, width=width, last=width, rank=3), Value(state)]


RULES: Rules = {
    (MICROSOFT, "LinearAttention"): _recurrence,
    ("", "Transpose"): _transpose,
    ("", "Concat"): _concat,
    ("", "Conv"): _conv,
    ("", "Slice"): _slice,
    (MICROSOFT, "CausalConvWithState"): _causal,
}
