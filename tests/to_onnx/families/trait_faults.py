"""Faults for graphs: each takes a finished folder and undoes one thing that a block computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.to_onnx.onnx_folders import edit_graph, writable

Fault = Callable[[Path], None]


def attribute(operator: str, name: str, value: int | float | None) -> Fault:
    """Another value of an attribute, or none, on every node of an operator that has it."""

    def change(model: Any) -> None:
        from onnx import helper

        nodes = [node for node in model.graph.node if node.op_type.endswith(operator)]
        found = [node for node in nodes if any(own.name == name for own in node.attribute)]
        assert found, f"no {operator} has {name}"
        for node in found:
            kept = [own for own in node.attribute if own.name != name]
            del node.attribute[:]
            more = [] if value is None else [helper.make_attribute(name, value)]
            node.attribute.extend([*kept, *more])

    return lambda out: edit_graph(out, change)


def constant(name: str, value: float) -> Fault:
    """Another value of a constant in the graph."""

    def change(model: Any) -> None:
        from onnx import numpy_helper

        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        old = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.full(old.shape, value, old.dtype), name))

    return lambda out: edit_graph(out, change)


def tensor(end: str, change: Callable[[np.ndarray], Any]) -> Fault:
    """Other numbers in a weight, whose name ends so."""

    def plant(out: Path) -> None:
        import onnx

        model = onnx.load(str(out / "onnx" / "model.onnx"), load_external_data=False)
        names = [own.name for own in model.graph.initializer if own.name.endswith(end)]
        assert names, end
        for name in names:
            data = writable(out, name)
            data[...] = change(np.array(data))

    return plant


def reads(operator: str, output: str, place: int, wanted: str) -> Fault:
    """Another value at an input of the node of an operator whose output begins so."""

    def change(model: Any) -> None:
        node = _node(model, operator, output)
        node.input[place] = wanted

    return lambda out: edit_graph(out, change)


def skips(operator: str, output: str, place: int = 0) -> Fault:
    """A node is passed by: its readers get its input."""

    def change(model: Any) -> None:
        node = _node(model, operator, output)
        for other in model.graph.node:
            for n, name in enumerate(other.input):
                if name == node.output[0]:
                    other.input[n] = node.input[place]
        model.graph.node.remove(node)

    return lambda out: edit_graph(out, change)


def norm_before_rotation(out: Path) -> None:
    """q of layer 0 is normed and then rotated, where it was rotated and then normed."""

    def change(model: Any) -> None:
        rotate = _node(model, "RotaryEmbedding", "layer_0_q_rotated")
        attend = _node(model, "Attention", "layer_0_attention")
        first = next(node for node in model.graph.node if rotate.output[0] in node.input)
        last = next(node for node in model.graph.node if attend.input[0] in node.output)
        rotated = type(rotate)()
        rotated.CopyFrom(rotate)
        first.input[0], rotated.input[0] = rotate.input[0], last.output[0]
        attend.input[0] = rotate.output[0]
        model.graph.node.remove(rotate)
        model.graph.node.insert(list(model.graph.node).index(last) + 1, rotated)

    edit_graph(out, change)


def swapped_outputs(operator: str, output: str, first: int, second: int) -> Fault:
    """Two outputs of a node are taken for each other."""

    def change(model: Any) -> None:
        outputs = _node(model, operator, output).output
        outputs[first], outputs[second] = outputs[second], outputs[first]

    return lambda out: edit_graph(out, change)


def swapped_inputs(operator: str, output: str, first: int, second: int) -> Fault:
    """Two inputs of a node are taken for each other."""

    def change(model: Any) -> None:
        inputs = _node(model, operator, output).input
        inputs[first], inputs[second] = inputs[second], inputs[first]

    return lambda out: edit_graph(out, change)


def _node(model: Any, operator: str, output: str) -> Any:
    return next(
        node
        for node in model.graph.node
        if node.op_type.endswith(operator) and any(name.startswith(output) for name in node.output)
    )
