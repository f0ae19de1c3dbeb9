"""What products by matrices, looked-up rows and norms mean.

Sources: onnx docs/Operators.md, onnxruntime docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from converters.to_onnx.lookup import DOMAIN as LOOKUP
from converters.to_onnx.structure.graph.reader import MICROSOFT, Node, Reader, Rule, Rules, Value
from converters.to_onnx.structure.terms import NORM, PRODUCT


def product(reader: Reader, x: Value, weight: str, bias: str | None, **rest: Any) -> Value:
    """x by the rows of tensors, plus biases."""
    term = reader.terms.make(PRODUCT, {"x": x.term}, weight=weight, bias=bias, **rest)
    width = sum(stop - start for _, start, stop in reader.parts(weight)) or None
    return Value(term, width=width, last=width, rank=x.rank)


def _gemm(reader: Reader, node: Node) -> Sequence[Value]:
    x, matrix = node.at(0), node.at(1)
    if x is None or matrix is None or matrix.weight is None or node.attributes.get("transB") != 1:
        return reader.plain(node)
    rest = node.rest(transB=1, transA=0, alpha=1.0, beta=1.0)
    return [product(reader, x, matrix.weight, named(node.at(2)), **rest)]


def _fused_matmul(reader: Reader, node: Node) -> Sequence[Value]:
    x, matrix = node.at(0), node.at(1)
    if x is None or matrix is None or matrix.weight is None or node.attributes.get("transB") != 1:
        return reader.plain(node)
    rest = node.rest(transB=1, transA=0, alpha=1.0, transBatchA=0, transBatchB=0)
    return [product(reader, x, matrix.weight, None, **rest)]


def _matmul_nbits(reader: Reader, node: Node) -> Sequence[Value]:
    """Sizes and bits say how codes are read, which the weights show; the level is the type's."""
    x = node.at(0)
    if x is None:
        return reader.plain(node)
    rest = node.rest("K", "N", "bits", "block_size", "accuracy_level")
    if node.at(4) is not None:
        rest["g_idx"] = "given"
    return [product(reader, x, packed(node, 1, 2, 3), named(node.at(5)), **rest)]


def packed(node: Node, codes: int, scales: int, zeros: int) -> str:
    """The tensor that codes, scales and zero points hold, by the names of these inputs."""
    stem = named(node.at(codes)) or "nothing"
    stem = stem.removesuffix("_by_row").removesuffix("_codes")
    others = [(named(node.at(scales)), "_scales"), (named(node.at(zeros)), "_zero_points")]
    strange = [name for name, end in others if name is not None and name != stem + end]
    return f"{stem} with {' and '.join(strange)}" if strange else stem


def named(value: Value | None) -> str | None:
    """The name of a weight, of another value its own."""
    return None if value is None else value.weight or value.name


def _gather(reader: Reader, node: Node) -> Sequence[Value]:
    rows, ids = node.at(0), node.at(1)
    if rows is None or ids is None or rows.weight is None:
        return reader.plain(node)
    return [_embedding(reader, rows.weight, ids, rows.last, **node.rest(axis=0))]


def _gather_quantised(reader: Reader, node: Node) -> Sequence[Value]:
    ids = node.at(1)
    if ids is None:
        return reader.plain(node)
    rest = node.rest("bits", "block_size", gather_axis=0, quantize_axis=1)
    weight = packed(node, 0, 2, 3)
    known = weight in reader.model.weights
    width = reader.model.tensor(weight).shape[1] if known else None
    return [_embedding(reader, weight, ids, width, **rest)]


def _embedding(reader: Reader, weight: str, ids: Value, width: int | None, **rest: Any) -> Value:
    """Rows of a table: of the ids that the graph is given, or of others."""
    given = np.arange(6).reshape(2, 3)
    found = reader.indices.run([ids.name], ids=given)[0] if ids.index else np.zeros(0)
    which = "token ids" if found.ravel().tolist() == given.ravel().tolist() else "others"
    term = reader.terms.make("embedding", rows=which, weight=weight, **rest)
    return Value(term, width=width, last=width, rank=found.ndim + 1)


def _norm(form: str) -> Rule:
    """A norm. form: rms or mean, of what is taken off and divided by."""

    def rule(reader: Reader, node: Node) -> Sequence[Value]:
        x = node.at(0)
        if x is None:
            return reader.plain(node)
        own = {"epsilon": node.attributes.get("epsilon", 1e-5), **_learned(reader, node, 1, 2)}
        rest = node.rest("epsilon", axis=-1, stash_type=1)
        term = reader.terms.make(NORM, {"x": x.term}, form=form, size=x.last, **own, **rest)
        return [replace(x, term=term)]

    return rule


def _added_norm(form: str, *, biased: bool) -> Rule:
    """The norm of a sum, and the sum. biased: the norm's bias comes before the sum's third part."""

    def rule(reader: Reader, node: Node) -> Sequence[Value]:
        x, skip, third = node.at(0), node.at(1), node.at(4 if biased else 3)
        if x is None or skip is None:
            return reader.plain(node)
        terms = [value.term for value in (x, skip, third) if value is not None]
        total = reader.terms.add(*terms)
        own = {
            "epsilon": node.attributes.get("epsilon", 1e-12),
            **_learned(reader, node, 2, 3 if biased else None),
        }
        rest = node.rest("epsilon")
        term = reader.terms.make(NORM, {"x": total}, form=form, size=x.last, **own, **rest)
        unused = Value(reader.terms.make("statistics", {"of": term}))
        return [replace(x, term=term), unused, unused, replace(x, term=total)]

    return rule


def _learned(reader: Reader, node: Node, weight: int, bias: int | None) -> dict[str, str | None]:
    """The tensors of a norm, by the places of its inputs; a weight of ones is none."""
    one, other = node.at(weight), None if bias is None else node.at(bias)
    ones = one is not None and one.index and bool((reader.indices.value(one.name) == 1).all())
    return {"weight": None if ones else named(one), "bias": named(other)}


RULES: Rules = {
    ("", "Gemm"): _gemm,
    (MICROSOFT, "FusedMatMul"): _fused_matmul,
    (MICROSOFT, "MatMulNBits"): _matmul_nbits,
    ("", "Gather"): _gather,
    (MICROSOFT, "GatherBlockQuantized"): _gather_quantised,
    (LOOKUP, "GatherBlockQuantized"): _gather_quantised,  # ports.py looks at what it does
    ("", "RMSNormalization"): _norm("rms"),
    ("", "SimplifiedLayerNormalization"): _norm("rms"),
    ("", "LayerNormalization"): _norm("mean"),
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): _added_norm("rms", biased=False),
    (MICROSOFT, "SkipLayerNormalization"): _added_norm("mean", biased=True),
}
