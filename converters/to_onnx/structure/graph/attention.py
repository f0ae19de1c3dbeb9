"""What rotations and attentions mean.

Sources: onnx docs/Operators.md (RotaryEmbedding, Attention), onnxruntime docs/ContribOperators.md
(RotaryEmbedding, GroupQueryAttention).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from converters.to_onnx.structure.graph.masks import ANOTHER
from converters.to_onnx.structure.graph.reader import MICROSOFT, Node, Reader, Rules, Value
from converters.to_onnx.structure.terms import ATTENTION, CACHE, ROTATION, Term


def _own_rotation(reader: Reader, node: Node) -> Sequence[Value]:
    """onnxruntime's: x, positions, cos, sin."""
    return _rotation(reader, node, (2, 3, 1))


def _standard_rotation(reader: Reader, node: Node) -> Sequence[Value]:
    """ai.onnx's: x, cos, sin, positions."""
    return _rotation(reader, node, (1, 2, 3))


def _rotation(reader: Reader, node: Node, places: tuple[int, int, int]) -> Sequence[Value]:
    x, (cos, sin, positions) = node.at(0), (node.at(place) for place in places)
    given = [value for value in (cos, sin, positions) if value is not None]
    if x is None or cos is None or sin is None or not all(value.index for value in given):
        return reader.plain(node)
    said = node.attributes
    by = reader.rotations.found(cos.name, sin.name, None if positions is None else positions.name)
    idle = {"interleaved": 0, "scale": 1.0, "is_packed_batching": 0}
    rest = node.rest("num_heads", "rotary_embedding_dim", **idle)
    term = reader.terms.make(
        ROTATION,
        {"x": x.term},
        heads=said.get("num_heads"),
        share=said.get("rotary_embedding_dim") or None,
        table=by,
        **rest,
    )
    return [replace(x, term=term)]


def _grouped(reader: Reader, node: Node) -> Sequence[Value]:
    """GroupQueryAttention without its own rotation: causal by itself, padding by a bias."""
    lengths, total, bias, sinks = (node.at(place) for place in (5, 6, 10, 11))
    mask = ANOTHER
    if lengths and total and bias and lengths.index and total.index and bias.index:
        mask = reader.masks.kept(lengths.name, total.name, bias.name)
    others = {n for n, value in enumerate(node.values) if value is not None}
    window = node.attributes.get("local_window_size", -1)
    return _attention(
        reader,
        node,
        places=(3, 4),
        heads=node.attributes.get("num_heads"),
        window=None if window == -1 else window,
        mask=mask,
        sinks=None if sinks is None else sinks.weight or sinks.name,
        **{f"input {n}": "given" for n in sorted(others - {0, 1, 2, 3, 4, 5, 6, 10, 11})},
        **node.rest("num_heads", *SHARED, "local_window_size", do_rotary=0, **IDLE),
    )


def _standard(reader: Reader, node: Node) -> Sequence[Value]:
    """ai.onnx's Attention under a mask that says all."""
    mask = node.at(3)
    said: dict[str, Any] = {"mask": ANOTHER}
    if mask is not None and mask.index:
        said = dict(zip(("mask", "window"), reader.masks.seen(mask.name), strict=True))
    with_sinks = mask is not None and mask.term.kind == MASK_AND_SINKS
    if mask is not None and with_sinks:
        said = dict(mask.term.fields)
        node = replace(node, values=[_without_sink(reader, value) for value in node.values])
    made = _attention(
        reader,
        node,
        places=(4, 5),
        heads=node.attributes.get("q_num_heads"),
        **said,
        **node.rest("q_num_heads", *SHARED, is_causal=0, **IDLE),
    )
    if not with_sinks:
        return made
    longer = [reader.terms.make(CACHE_AND_SINK, {"of": value.term}) for value in made[1:]]
    return [made[0], *map(Value, longer)]


MASK_AND_SINKS, CACHE_AND_SINK = "mask and sinks", "cache and sink"


def _without_sink(reader: Reader, value: Value | None) -> Value | None:
    """k or v (b, s, k*d) less the token of zeros behind it."""
    if value is None or value.term.kind != "operator Pad":
        return value
    behind = reader.terms.constant("int64", (6,), 0, 0, 0, 0, 1, 0)
    return value if value.term.dig("1") is not behind else Value(value.term.inputs["0"])


def _where(reader: Reader, node: Node) -> Sequence[Value]:
    """A mask whose last column is every head's sink."""
    is_sink, own, costs = (node.at(place) for place in range(3))
    if is_sink is None or own is None or costs is None or not (is_sink.index and costs.index):
        return reader.plain(node)
    sinks, axes = own.term.dig("0"), reader.terms.constant("int64", (2,), 1, 2)
    if sinks is None or own.term is not reader.terms.operator("Unsqueeze", sinks, axes):
        return reader.plain(node)
    seen, window = reader.masks.seen(costs.name, is_sink.name)
    name = sinks.fields.get("name")
    term = reader.terms.make(MASK_AND_SINKS, mask=seen, window=window, sinks=name)
    return [Value(term)]


def _slice(reader: Reader, node: Node) -> Sequence[Value]:
    """A cache less the sink's token, its last."""
    longer = node.at(0)
    ends = [reader.constant(node.at(place)) for place in range(1, 4)]
    if longer is None or longer.term.kind != CACHE_AND_SINK or ends != [0, -1, 2] or node.at(4):
        return reader.plain(node)
    return [Value(longer.term.inputs["of"])]


SHARED = ("kv_num_heads", "scale", "softcap")
IDLE: dict[str, Any] = {
    "smooth_softmax": 0,
    "rotary_interleaved": 0,
    "qk_output": 0,
    "qk_matmul_output_mode": 0,
}


def _attention(
    reader: Reader, node: Node, *, places: tuple[int, int], **said: Any
) -> Sequence[Value]:
    """The attention and the keys and values that it hands on. places: of the past ones."""
    roles = dict(zip(("q", "k", "v", "past keys", "past values"), (0, 1, 2, *places), strict=True))
    values = {role: node.at(place) for role, place in roles.items()}
    inputs = {role: value.term for role, value in values.items() if value is not None}
    numbers = {name: node.attributes.get(name) for name in ("kv_num_heads", "scale")}
    cap = node.attributes.get("softcap") or None
    term = reader.terms.make(ATTENTION, inputs, **numbers, softcap=cap, **said)
    width = _width(values["v"], numbers["kv_num_heads"], said.get("heads"))
    if width is None and values["q"] is not None:  # a sink's zeros are behind v
        width = values["q"].width
    caches = [_cache(reader, term, part) for part in ("keys", "values")]
    return [Value(term, width=width, last=width, rank=3), *caches]


def _width(v: Value | None, kv_heads: Any, heads: Any) -> int | None:
    """Numbers a token of what is gathered: as many a head as v has."""
    known = isinstance(kv_heads, int) and isinstance(heads, int) and kv_heads > 0
    return v.width // kv_heads * heads if known and v is not None and v.width else None


def _cache(reader: Reader, attention: Term, part: str) -> Value:
    return Value(reader.terms.make(CACHE, {"of": attention}, part=part))


RULES: Rules = {
    (MICROSOFT, "RotaryEmbedding"): _own_rotation,
    ("", "RotaryEmbedding"): _standard_rotation,
    (MICROSOFT, "GroupQueryAttention"): _grouped,
    ("", "Attention"): _standard,
    ("", "Where"): _where,
    ("", "Slice"): _slice,
}
