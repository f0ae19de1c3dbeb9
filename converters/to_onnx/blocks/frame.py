"""A decoder under construction: what every block's nodes are added with.

Shape letters: b batch, s new tokens, p past tokens, e hidden, h heads, k key/value heads,
d head_dim, f intermediate, v vocabulary; x is (b*s, e) in a flat profile, else (b, s, e), written
(..., e).
"""

from __future__ import annotations

from dataclasses import dataclass

from converters.to_onnx.graph import Graph, Value
from converters.to_onnx.profiles._shared import Inputs, Norm, Profile
from converters.to_onnx.weights import Store
from ropeconv.arch.blocks import norm as norms
from ropeconv.arch.blocks.weight import Linear, Weight

B, S, P = "batch_size", "sequence_length", "past_sequence_length"
T = f"{P} + {S}"


@dataclass(frozen=True)
class Decoder:
    """profile: how it is said; inputs: what every layer reads."""

    profile: Profile
    inputs: Inputs

    @property
    def store(self) -> Store:
        """The weights."""
        return self.inputs.store

    @property
    def graph(self) -> Graph:
        """The graph."""
        return self.inputs.graph

    def norm(self, block: norms.Norm, layer: int | None) -> Norm:
        """A norm's values; ones for a norm without weights, which the operators do not know."""
        if isinstance(block, norms.BareLayerNorm | norms.BareRmsNorm):
            return Norm(block, (self.ones(block.size),))
        names = [name_of(weight, layer) for weight in block.weights]
        return Norm(block, tuple(self.store.vector(name) for name in names))

    def ones(self, size: int) -> Value:
        """(size,) ones in the type of the activations."""
        return self.graph.filled(1.0, self.store.kind.dtype, size, name=f"ones_{size}")

    def scaled(self, x: Value, scale: float, *, constant: str, name: str) -> Value:
        """x times a number; x itself where that is 1."""
        if scale == 1.0:
            return x
        factor = self.graph.constant(scale, self.store.kind.dtype, name=constant)
        return self.graph.op("Mul", x, factor, name=name)

    def linear(self, x: Value, layer: int, *linears: Linear, floats: bool = False) -> Value:
        """x by matrices, one after the other, plus their biases when they have some.

        floats: the matrices stay floats in every type.
        """
        names = [name_of(linear.weight, layer) for linear in linears]
        biases = [name_of(linear.bias, layer) for linear in linears if linear.bias is not None]
        roles = "_".join(linear.weight.role.value for linear in linears)
        to = f"layer_{layer}_{roles}"
        y = self.store.linear(x, names, biases=biases, to=to, floats=floats)
        (factor,) = {linear.factor for linear in linears}
        return self.scaled(y, factor, constant="factor", name=f"{to}_scaled")

    def split(self, x: Value, layer: int, *linears: Linear) -> list[Value]:
        """x by each of several matrices, in one product."""
        matrices = [name_of(linear.weight, layer) for linear in linears]
        one = len({(linear.bias is None, linear.factor) for linear in linears}) == 1
        if not one or not self.store.choice.alike(matrices):
            return [self.linear(x, layer, linear) for linear in linears]
        rows = [linear.weight.shape[0] for linear in linears]
        names = [f"layer_{layer}_{linear.weight.role.value}" for linear in linears]
        product = self.linear(x, layer, *linears)
        return self.graph.ops("Split", (product, self.graph.ints(*rows)), names, axis=-1)

    def flatten(self, x: Value, width: int, *, name: str) -> Value:
        """(..., width) of (b, s, width)."""
        return self._as_rows(x, width, name=name) if self.store.flat else x

    def whole(self, x: Value, *, name: str) -> Value:
        """(b, s, width) of (..., width)."""
        shape = self.inputs.shape
        return self.graph.op("Reshape", x, shape, name=name) if self.store.flat else x

    def real(self, x: Value, layer: int) -> Value:
        """x (..., width) with zeros for padding."""
        return self.graph.op("Mul", x, self.inputs.real, name=f"layer_{layer}_unpadded")

    def rows(self, x: Value, width: int, *, name: str) -> Value:
        """(b*s, width) of (..., width)."""
        return x if self.store.flat else self._as_rows(x, width, name=name)

    def unrows(self, x: Value, *, name: str) -> Value:
        """(..., width) of (b*s, width)."""
        if self.store.flat:
            return x
        return self.graph.op("Reshape", x, self.inputs.shape, name=name)

    def _as_rows(self, x: Value, width: int, *, name: str) -> Value:
        return self.graph.op("Reshape", x, self.graph.ints(-1, width), name=name)


def name_of(weight: Weight, layer: int | None, expert: int | str | None = None) -> str:
    """The tensor's name in the checkpoint."""
    return weight.template.format(n=layer, x=expert)
