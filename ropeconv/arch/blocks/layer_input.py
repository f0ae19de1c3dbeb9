"""What every layer is given of a token beside the residual stream.

Shape letters: e hidden, v vocabulary, n layers, p numbers of one layer's input.
"""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.arch.blocks.norm import RmsNorm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Linear, Weight


@dataclass(frozen=True)
class LayerInputs:
    """(norm(projection x * shrink) + rows of the table * scale) / sqrt(2), for all layers at once.

    table: (v, n*p), by the token; projection: (n*p, e), of what goes into the first layer; norm:
    over each layer's p numbers.
    """

    table: Weight
    scale: float
    projection: Linear
    shrink: float
    norm: RmsNorm
    layers: int

    @property
    def size(self) -> int:
        """Numbers of one layer's input: p."""
        return self.norm.weight.shape[0]

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors."""
        return (self.table, *self.projection.weights, *self.norm.weights)

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        return frozenset({Trait.LAYER_INPUTS})


@dataclass(frozen=True)
class LayerInput:
    """x + norm(output(act(gate x) * input)) behind a layer's MLP. gate: (p, e); output: (e, p)."""

    gate: Linear
    output: Linear
    norm: RmsNorm
    activation: str

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors."""
        return self.gate.weights + self.output.weights + self.norm.weights

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        return frozenset({Trait.LAYER_INPUTS})
