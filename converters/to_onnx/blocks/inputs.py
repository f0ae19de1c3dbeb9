"""What every layer is given of a token beside the residual stream.

Shape letters: n layers, p numbers of one layer's input.
"""

from __future__ import annotations

from converters.to_onnx.blocks.frame import Decoder, name_of
from converters.to_onnx.blocks.mlp import find_activation
from converters.to_onnx.graph import Value
from ropeconv.arch.blocks.layer_input import LayerInput, LayerInputs

NAME = "layer_inputs"


def add_inputs(decoder: Decoder, block: LayerInputs, ids: Value, x: Value) -> list[Value]:
    """(..., p) for each layer, of ids (...) and what goes into the first one (..., e)."""
    graph, count, size = decoder.graph, block.layers, block.size
    rows = decoder.store.embed(ids, name_of(block.table, None))
    rows = decoder.scaled(rows, block.scale, constant=f"{NAME}_scale", name=f"{NAME}_rows")
    names = [name_of(block.projection.weight, None)]
    y = decoder.store.linear(x, names, biases=[], to=f"{NAME}_projection")
    y = decoder.scaled(y, block.shrink, constant=f"{NAME}_shrink", name=f"{NAME}_projection")
    y = graph.op("Reshape", y, graph.ints(-1, size), name=f"{NAME}_each")
    y = decoder.profile.norm(y, decoder.norm(block.norm, None), name=f"{NAME}_norm")
    shape = graph.ints(-1, count * size) if decoder.store.flat else decoder.inputs.shape
    y = graph.op("Reshape", y, shape, name=f"{NAME}_together")
    y = graph.op("Add", y, rows, name=NAME)
    y = decoder.scaled(y, 0.5**0.5, constant=f"{NAME}_half", name=NAME)
    if count == 1:
        return [y]
    each = [f"layer_{n}_input" for n in range(count)]
    return list(graph.ops("Split", (y, graph.ints(*[size] * count)), each, axis=-1))


def add_input(decoder: Decoder, n: int, block: LayerInput, x: Value, given: Value) -> Value:
    """x (..., e) and what the layer makes of its own input (..., p)."""
    graph = decoder.graph
    y = find_activation(block.activation)(graph, decoder.linear(x, n, block.gate))
    y = graph.op("Mul", y, given, name=f"layer_{n}_input_gated")
    y = decoder.linear(y, n, block.output)
    y = decoder.profile.norm(y, decoder.norm(block.norm, n), name=f"layer_{n}_input_norm")
    return graph.op("Add", x, y, name="residual")
