"""What the blocks of a model are made into terms with."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from converters.to_onnx.blocks import find
from converters.to_onnx.structure.graph.rotations import Rotations
from converters.to_onnx.structure.terms import NORM, PRODUCT, SCALED, Term, Terms
from ropeconv.arch.blocks.norm import (
    BareLayerNorm,
    BareRmsNorm,
    HeadLayerNorms,
    LayerNorm,
    Norm,
    RmsNorm,
)
from ropeconv.arch.blocks.weight import Linear, Weight
from ropeconv.model import Model


@dataclass(frozen=True)
class Wanted:
    """A model whose terms are made. dtype: of the graph's floats, in which its constants are.
    keys: layer -> the keys and values of its new tokens.
    """

    model: Model
    terms: Terms
    rotations: Rotations
    dtype: str
    keys: dict[int, tuple[Term, Term]] = field(default_factory=dict)

    @property
    def hidden(self) -> int:
        """e."""
        return self.model.stack.hidden_size

    def constant(self, value: float) -> float:
        """A number as the graph can hold it."""
        return float(np.dtype(self.dtype).type(value))

    def scaled(self, x: Term, by: float, *, where: str) -> Term:
        """x, or its multiple."""
        if by == 1.0:
            return x
        return self.terms.make(SCALED, {"x": x}, by=self.constant(by), where=where)

    def linear(self, x: Term, linear: Linear, layer: int | None) -> Term:
        """x W^T + b, by its factor."""
        weight = name_of(linear.weight, layer)
        bias = None if linear.bias is None else name_of(linear.bias, layer)
        y = self.terms.make(PRODUCT, {"x": x}, weight=weight, bias=bias, where=weight)
        return self.scaled(y, linear.factor, where=f"factor of {weight}")

    def norm(
        self, x: Term, norm: Norm, layer: int | None, *, size: int, bare: bool = False
    ) -> Term:
        """The norm of x, `size` numbers at a time. bare: less what it multiplies by and adds."""
        form = find(FORMS, norm)
        kept = () if bare else norm.weights
        names = {weight.part: name_of(weight, layer) for weight in kept}
        where = place_of(layer, norm.role.value)
        return self.terms.make(
            NORM, {"x": x}, form=form, size=size, epsilon=norm.eps, where=where, **names
        )


FORMS: dict[type, str] = {
    RmsNorm: "rms",
    LayerNorm: "mean",
    BareLayerNorm: "mean",
    BareRmsNorm: "rms",
    HeadLayerNorms: "mean",
}


def name_of(weight: Weight, layer: int | None, expert: int | str | None = None) -> str:
    """The tensor's name in the checkpoint."""
    return weight.template.format(n=layer, x=expert)


def place_of(layer: int | None, what: str) -> str:
    """How a place in the model is called."""
    return what if layer is None else f"layer {layer} {what}"
