"""Attention as terms. Shape letters: h heads, k key/value heads, d head_dim."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from converters.to_onnx.blocks import find
from converters.to_onnx.profiles._shared import Rotating
from converters.to_onnx.structure.graph.masks import CAUSAL
from converters.to_onnx.structure.graph.temperatures import wanted as temperature_name
from converters.to_onnx.structure.model.wanted import Wanted, name_of, place_of
from converters.to_onnx.structure.terms import (
    ATTENTION,
    BY_WEIGHT,
    CACHE,
    CLAMP,
    PART,
    PLUS_WEIGHT,
    ROTATION,
    TEMPERED,
    Term,
)
from converters.to_onnx.weights import JOINT
from ropeconv.arch.blocks.attention import (
    Attention,
    Fused,
    KeysAsValues,
    Order,
    Pairing,
    Queries,
    Separate,
)
from ropeconv.arch.blocks.norm import HeadLayerNorms, Norm
from ropeconv.arch.stack import Layer

ROLES = ("q", "k", "v", "past keys", "past values")
OWN = {"weight": BY_WEIGHT, "bias": PLUS_WEIGHT}


def attention(wanted: Wanted, n: int, layer: Layer, x: Term) -> tuple[Term, Mapping[str, Term]]:
    """(what the layer adds to the stream, what it hands on: output -> term)."""
    block = layer.mixer
    assert isinstance(block, Attention)
    term, gate = attended(wanted, n, layer.kind, block, x)
    shared = isinstance(block.projections, Queries)
    handed = {} if shared else handed_on(wanted, n, term)
    if gate is not None:
        share = wanted.terms.operator("Sigmoid", gate)
        term = wanted.terms.times(term, share, where=place_of(n, "gate behind attention"))
    return wanted.linear(term, block.output, n), handed


def handed_on(wanted: Wanted, n: int, term: Term) -> dict[str, Term]:
    """The keys and values that an attention adds to the cache: output -> term."""
    handed = {}
    for part, names in (("key", "keys"), ("value", "values")):
        place = f"present.{n}.{part}"
        handed[place] = wanted.terms.make(CACHE, {"of": term}, part=names, where=place)
    return handed


def attended(
    wanted: Wanted, n: int, kind: str, block: Attention, x: Term
) -> tuple[Term, Term | None]:
    """(what a layer's tokens attend to, before gates and the output projection; the gates)."""
    parts, gate = find(PROJECTIONS, block.projections)(wanted, n, block, x), None
    if block.gated:
        parts[0], gate = _ungated(wanted, n, block.head_dim, parts[0])
    q, *own = (_clamped(wanted, n, block, y) for y in parts)
    q = _turned(wanted, n, kind, block, "q", q)
    owner = wanted.model.stack.keys_of(n)
    if own:
        k = _turned(wanted, n, kind, block, "k", own[0])
        norm, v = block.v_norm, own[1]
        v = v if norm is None else wanted.norm(v, norm, n, size=block.head_dim)
        wanted.keys[n] = k, v
    if block.temperature is not None:
        by = temperature_name(block.temperature)
        q = wanted.terms.make(TEMPERED, {"x": q}, by=by, where=place_of(n, "temperature of q"))
    term = attending(
        wanted,
        n,
        (q, *wanted.keys[owner]),
        block.num_heads,
        block.num_kv_heads,
        scale=block.scale,
        softcap=block.softcap,
        window=block.window,
        sinks=None if block.sinks is None else name_of(block.sinks, n),
        owner=owner,
    )
    return term, gate


def attending(
    wanted: Wanted,
    n: int,
    qkv: tuple[Term, Term, Term],
    heads: int,
    kv_heads: int,
    *,
    owner: int | None = None,
    **said: Any,
) -> Term:
    """What every token gathers from those before it. owner: the layer whose keys and values these
    are, where they are another's.
    """
    number = n if owner is None else owner
    past = [
        wanted.terms.make("input", name=f"past_key_values.{number}.{part}")
        for part in ("key", "value")
    ]
    return wanted.terms.make(
        ATTENTION,
        dict(zip(ROLES, (*qkv, *past), strict=True)),
        kv_num_heads=kv_heads,
        heads=heads,
        mask=CAUSAL,
        where=place_of(n, "attention"),
        **said,
    )


def _ungated(wanted: Wanted, n: int, size: int, rows: Term) -> tuple[Term, Term]:
    """(q, gates) of both, head by head."""
    q, gate = (
        wanted.terms.make(
            PART,
            {"x": rows},
            first=start,
            last=start + size - 1,
            of_each=2 * size,
            where=place_of(n, part),
        )
        for part, start in (("q", 0), ("gate of attention", size))
    )
    return q, gate


def _separate(wanted: Wanted, n: int, block: Attention, x: Term) -> list[Term]:
    rows = block.projections
    assert isinstance(rows, Separate)
    return [wanted.linear(x, part, n) for part in (rows.q, rows.k, rows.v)]


def _keys_as_values(wanted: Wanted, n: int, block: Attention, x: Term) -> list[Term]:
    rows = block.projections
    assert isinstance(rows, KeysAsValues)
    q, k = (wanted.linear(x, part, n) for part in (rows.q, rows.k))
    return [q, k, k]


def _queries(wanted: Wanted, n: int, block: Attention, x: Term) -> list[Term]:
    rows = block.projections
    assert isinstance(rows, Queries)
    return [wanted.linear(x, rows.q, n)]


def _fused(wanted: Wanted, n: int, block: Attention, x: Term) -> list[Term]:
    rows = block.projections
    assert isinstance(rows, Fused)
    packed = wanted.linear(x, rows.qkv, n)
    q, k, v, each = ORDERS[rows.order](block.num_heads, block.num_kv_heads, block.head_dim)
    every = rows.qkv.weight.shape[0]
    return [
        wanted.terms.make(
            PART,
            {"x": packed},
            first=start,
            last=start + size - 1,
            of_each=None if each == every else each,
            where=place_of(n, part),
        )
        for part, start, size in (("q", 0, q), ("k", q, k), ("v", q + k, v))
    ]


PROJECTIONS: dict[type, Callable[[Wanted, int, Attention, Term], list[Term]]] = {
    Separate: _separate,
    KeysAsValues: _keys_as_values,
    Queries: _queries,
    Fused: _fused,
}
# (h, k, d) -> (rows of q, of k, of v, in each so many; None, or as many as there are: in all)
ORDERS: dict[Order, Callable[[int, int, int], tuple[int, int, int, int | None]]] = {
    Order.STACKED: lambda h, k, d: (h * d, k * d, k * d, None),
    Order.PER_HEAD: lambda _h, _k, d: (d, d, d, 3 * d),
    Order.GROUPED: lambda h, k, d: (h // k * d, d, d, (h // k + 2) * d),
}


def _clamped(wanted: Wanted, n: int, block: Attention, y: Term) -> Term:
    if block.clamp is None:
        return y
    ends = {"low": wanted.constant(-block.clamp), "high": wanted.constant(block.clamp)}
    return wanted.terms.make(CLAMP, {"x": y}, where=place_of(n, "clamp"), **ends)


def _turned(wanted: Wanted, n: int, kind: str, block: Attention, part: str, y: Term) -> Term:
    """q or k, normed and rotated where the block says so."""
    norm, heads = {
        "q": (block.q_norm, block.num_heads),
        "k": (block.k_norm, block.num_kv_heads),
    }[part]
    steps: list[Callable[[Term], Term]] = [
        lambda x: _normed(wanted, n, block, norm, heads, x),
        lambda x: rotated(wanted, n, kind, block, part, x, heads=heads),
    ]
    if block.norms_after_rotation:
        steps.reverse()
    for step in steps:
        y = step(y)
    return y


def _normed(
    wanted: Wanted, n: int, block: Attention, norm: Norm | None, heads: int, y: Term
) -> Term:
    """Over each head or all of them; what every head has of its own comes after the norm."""
    if norm is None:
        return y
    shape = norm.weights[0].shape
    if not isinstance(norm, HeadLayerNorms) and len(shape) == 1:
        return wanted.norm(y, norm, n, size=shape[0])
    y = wanted.norm(y, norm, n, size=block.head_dim, bare=True)
    names = {weight.part: name_of(weight, n) for weight in norm.weights}
    if isinstance(norm, HeadLayerNorms):
        names = {"weight": JOINT.join(name_of(weight, n) for weight in norm.weights)}
    for part, name in names.items():
        own: dict[str, Any] = {"weight": name, "of": (heads, block.head_dim)}
        y = wanted.terms.make(OWN[part], {"x": y}, where=name, **own)
    return y


def rotated(
    wanted: Wanted, n: int, kind: str, block: Rotating, part: str, y: Term, *, heads: int
) -> Term:
    """q or k, rotated where layers of this kind are."""
    rope = wanted.model.ropes[kind]
    if rope is None:
        return y
    return wanted.terms.make(
        ROTATION,
        {"x": y},
        heads=heads,
        share=None if rope.rotary_dim == block.rotary_size else rope.rotary_dim,
        interleaved=1 if block.pairing is Pairing.ADJACENT else None,
        table=wanted.rotations.wanted(kind),
        where=place_of(n, f"rotation of {part}"),
    )
