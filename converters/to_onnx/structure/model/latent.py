"""Latent attention as terms. Shape letters: h heads, n values of a head that stand still, r that
rotate, v of a value head, l latent.
"""

from __future__ import annotations

from collections.abc import Mapping

from converters.to_onnx.structure.model.attention import attending, handed_on, rotated
from converters.to_onnx.structure.model.wanted import Wanted, place_of
from converters.to_onnx.structure.terms import JOINED, PART, REPEATED, Term
from ropeconv.arch.blocks.mla import LatentAttention, LowRank
from ropeconv.arch.stack import Layer


def latent_attention(
    wanted: Wanted, n: int, layer: Layer, x: Term
) -> tuple[Term, Mapping[str, Term]]:
    """(what the layer adds to the stream, what it hands on: output -> term)."""
    block = layer.mixer
    assert isinstance(block, LatentAttention)
    q = _queries(wanted, n, layer.kind, block, x)
    k, v = _keys_and_values(wanted, n, layer.kind, block, x)
    scale = block.scale * wanted.model.score_factor
    term = attending(wanted, n, (q, k, v), block.num_heads, block.num_kv_heads, scale=scale)
    return wanted.linear(term, block.output, n), handed_on(wanted, n, term)


def _queries(wanted: Wanted, n: int, kind: str, block: LatentAttention, x: Term) -> Term:
    query = block.query
    if isinstance(query, LowRank):
        inner = wanted.linear(x, query.down, n)
        x = wanted.norm(inner, query.norm, n, size=query.norm.weight.shape[0])
        query = query.up
    rows = wanted.linear(x, query, n)
    still, turned = _cut(
        wanted, n, "q", rows, block.num_heads, (block.still_dim, block.rotary_size)
    )
    turned = rotated(wanted, n, kind, block, "q", turned, heads=block.num_heads)
    return _joined(wanted, block, still, turned)


def _keys_and_values(
    wanted: Wanted, n: int, kind: str, block: LatentAttention, x: Term
) -> tuple[Term, Term]:
    rows = wanted.linear(x, block.compress, n)
    latent, turned = _cut(wanted, n, "latent", rows, 1, (block.latent_dim, block.rotary_size))
    normed = wanted.norm(latent, block.norm, n, size=block.latent_dim)
    sizes = (block.still_dim, block.value_dim)
    expanded = wanted.linear(normed, block.expand, n)
    still, v = _cut(wanted, n, "k and v", expanded, block.num_heads, sizes)
    turned = rotated(wanted, n, kind, block, "k", turned, heads=1)
    every = wanted.terms.make(
        REPEATED, {"x": turned}, times=block.num_heads, where=place_of(n, "k of every head")
    )
    return _joined(wanted, block, still, every), v


def _cut(
    wanted: Wanted, n: int, what: str, rows: Term, heads: int, sizes: tuple[int, int]
) -> list[Term]:
    """Two parts of every head."""
    each = None if heads == 1 else sum(sizes)
    ends = ((0, sizes[0] - 1), (sizes[0], sum(sizes) - 1))
    return [
        wanted.terms.make(
            PART,
            {"x": rows},
            first=first,
            last=last,
            of_each=each,
            where=place_of(n, f"part of {what}"),
        )
        for first, last in ends
    ]


def _joined(wanted: Wanted, block: LatentAttention, still: Term, turned: Term) -> Term:
    return wanted.terms.make(
        JOINED,
        {"first": still, "second": turned},
        first_of_each=block.still_dim,
        second_of_each=block.rotary_size,
    )
