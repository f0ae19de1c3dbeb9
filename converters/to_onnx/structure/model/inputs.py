"""What every layer is given beside the residual stream, as terms."""

from __future__ import annotations

from typing import Any

from converters.to_onnx.structure.model.mlp import active
from converters.to_onnx.structure.model.wanted import Wanted, name_of, place_of
from converters.to_onnx.structure.terms import PART, Term
from ropeconv.arch.blocks.layer_input import LayerInput, LayerInputs


def inputs(wanted: Wanted, block: LayerInputs, x: Term) -> list[Term]:
    """Each layer's, of what goes into the first."""
    terms, where, size = wanted.terms, "inputs of layers", block.size
    name = name_of(block.table, None)
    rows = terms.make("embedding", rows="token ids", weight=name, where=where)
    rows = wanted.scaled(rows, block.scale, where=where)
    y = wanted.scaled(wanted.linear(x, block.projection, None), block.shrink, where=where)
    y = terms.add(wanted.norm(y, block.norm, None, size=size), rows, where=where)
    y = wanted.scaled(y, 0.5**0.5, where=where)
    if block.layers == 1:
        return [y]
    cuts: list[dict[str, Any]] = [
        {"first": n * size, "last": (n + 1) * size - 1} for n in range(block.layers)
    ]
    return [
        terms.make(PART, {"x": y}, where=place_of(n, "input"), **cut) for n, cut in enumerate(cuts)
    ]


def with_input(wanted: Wanted, n: int, block: LayerInput, x: Term, given: Term) -> Term:
    """x and what the layer makes of its own input."""
    y = active(wanted, n, block.activation, wanted.linear(x, block.gate, n))
    y = wanted.linear(wanted.terms.times(y, given), block.output, n)
    y = wanted.norm(y, block.norm, n, size=wanted.hidden)
    return wanted.terms.add(x, y, where=place_of(n, "residual stream"))
