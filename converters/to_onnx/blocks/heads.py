"""q, k and v between their projections and the attention: clamps, norms, shapes.

Shape letters: b batch, s new tokens, h heads of this part, d head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from converters.to_onnx.blocks.frame import Decoder, name_of
from converters.to_onnx.graph import Value
from converters.to_onnx.profiles import _shared
from ropeconv.arch.blocks.norm import BareRmsNorm, HeadLayerNorms, Norm

OPERATORS = {"weight": "Mul", "bias": "Add"}


@dataclass(frozen=True)
class Part:
    """q, k or v of layer n, as `letter` says. whole: value is (b, s, h*d), else any view of it."""

    n: int
    letter: str
    value: Value
    heads: int
    whole: bool


def clamped(decoder: Decoder, part: Part, limit: float | None) -> Part:
    """Held within plus and minus the limit, where there is one."""
    if limit is None:
        return part
    graph, dtype = decoder.graph, decoder.store.kind.dtype
    ends = (
        graph.constant(-limit, dtype, name="clamp_low"),
        graph.constant(limit, dtype, name="clamp_high"),
    )
    name = f"layer_{part.n}_{part.letter}_clamped"
    return replace(part, value=graph.op("Clip", part.value, *ends, name=name))


def normed(decoder: Decoder, part: Part, norm: Norm | None, head_dim: int) -> Part:
    """Normed over each head, or over all of them, as the shape of the norm's weight says."""
    if norm is None:
        return part
    name = f"layer_{part.n}_{norm.role.value}"
    bare = isinstance(norm, BareRmsNorm)
    if isinstance(norm, HeadLayerNorms) or (not bare and len(norm.weights[0].shape) > 1):
        return replace(part, value=_each_by_its_own(decoder, part, norm, name=name), whole=False)
    graph, value = decoder.graph, part.value
    by_head = bare or norm.weights[0].shape == (head_dim,)
    if by_head:
        value = graph.op("Reshape", value, graph.ints(-1, head_dim), name=name)
    elif not decoder.store.flat:
        value = whole(decoder, part).value
    value = decoder.profile.norm(value, decoder.norm(norm, part.n), name=name)
    return replace(part, value=value, whole=part.whole and not by_head)


def whole(decoder: Decoder, part: Part) -> Part:
    """(b, s, h*d)."""
    if part.whole:
        return part
    name = f"layer_{part.n}_{part.letter}_3d"
    value = decoder.graph.op("Reshape", part.value, decoder.inputs.shape, name=name)
    return replace(part, value=value, whole=True)


def _each_by_its_own(decoder: Decoder, part: Part, norm: Norm, *, name: str) -> Value:
    """Every head normed, then by a weight of its own, plus its bias where there is one.

    The operators of norms have one weight for all rows, which is 1 here.
    """
    graph = decoder.graph
    size = norm.weights[0].shape[-1]
    value = graph.op("Reshape", part.value, graph.ints(-1, part.heads, size), name=name)
    plain = _shared.Norm(norm, (decoder.ones(size),))
    value = decoder.profile.norm(value, plain, name=name)
    if isinstance(norm, HeadLayerNorms):
        weights = [decoder.store.vector(name_of(weight, part.n)) for weight in norm.weights]
        joined = graph.op("Concat", *weights, name=f"{name}_rows", axis=0)
        own = graph.op("Reshape", joined, graph.ints(part.heads, size), name=f"{name}_rows")
        return graph.op("Mul", value, own, name=f"{name}_own")
    for weight in norm.weights:
        own = decoder.store.vector(name_of(weight, part.n))
        value = graph.op(OPERATORS[weight.part], value, own, name=f"{name}_own")
    return value
