"""A graph's nodes as terms: a rule an operator, and a term of its own for what has no rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from converters.to_onnx.read.entries import cache_type
from converters.to_onnx.read.folder import Folder
from converters.to_onnx.structure.graph.indices import INPUTS, Indices
from converters.to_onnx.structure.graph.masks import Masks
from converters.to_onnx.structure.graph.rotations import Rotations
from converters.to_onnx.structure.graph.temperatures import Temperatures
from converters.to_onnx.structure.terms import Term, Terms
from converters.to_onnx.weights import EVERY, JOINT
from ropeconv.errors import CheckpointError
from ropeconv.model import Model

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Value:
    """A value of the graph. term: what it is computed from; name: its own; index: whether it
    follows from ids, mask and positions alone; weight: the tensor that it is, of the checkpoint's
    names, and shape its shape. width: numbers a token; last: of its last axis; rank: its axes;
    None where unknown.
    """

    term: Term
    name: str = ""
    index: bool = False
    weight: str | None = None
    shape: tuple[int | str, ...] = ()
    width: int | None = None
    last: int | None = None
    rank: int | None = None


@dataclass
class Node:
    """A node, its inputs and its attributes."""

    proto: Any
    values: Sequence[Value | None]
    attributes: dict[str, Any]

    def at(self, place: int) -> Value | None:
        """An input, None where there is none."""
        return self.values[place] if place < len(self.values) else None

    def rest(self, *read: str, **idle: Any) -> dict[str, Any]:
        """The attributes beside those that are `read`, less what is as `idle`: the operator's own
        defaults, and what every use of it has.
        """
        return {
            name: value
            for name, value in self.attributes.items()
            if name not in read and (name not in idle or value != idle[name])
        }


Rule = Callable[["Reader", Node], Sequence[Value]]
"""The values of a node's outputs."""
Rules = Mapping[tuple[str, str], Rule]


class Reader:
    """The terms of one graph. rules: (domain, operator) -> what it means."""

    def __init__(self, folder: Folder, model: Model, terms: Terms, rules: Rules) -> None:
        self.folder = folder
        self.model = model
        self.terms = terms
        self.rules = rules
        self.indices = Indices(folder)
        self.masks = Masks(model, self.indices)
        self.rotations = Rotations(model, self.indices)
        self.temperatures = Temperatures(model, self.indices)
        self._places: dict[Any, str] = {}
        self._scope: Mapping[str, Value] = {}  # what a body may read beside its inputs

    @property
    def dtype(self) -> str:
        """The type of the graph's floats: that of its cache."""
        return cache_type(self.folder)

    def outputs(self) -> dict[str, Term]:
        """Every output's term."""
        graph = self.folder.model.graph
        values = {value.name: self._input(value.name) for value in graph.input}
        values |= {tensor.name: self._initializer(tensor) for tensor in graph.initializer}
        self._walk(graph.node, values, outer=True)
        return {value.name: _known(values, value.name).term for value in graph.output}

    def inside(self, body: Any, inputs: Mapping[str, Value]) -> Term:
        """The term of a body's only output, for what it is given."""
        values = {**self._scope, **inputs}
        values |= {tensor.name: self._initializer(tensor) for tensor in body.initializer}
        self._walk(body.node, values, outer=False)
        return _known(values, body.output[0].name).term

    def _walk(self, nodes: Any, values: dict[str, Value], *, outer: bool) -> None:
        """Add the values that `nodes` make. outer: they are the graph's own, and no body's."""
        for proto in nodes:
            self._scope = values
            inputs = [_known(values, name) if name else None for name in proto.input]
            node = Node(proto, inputs, {each.name: _plain(each) for each in proto.attribute})
            if outer and all(value is None or value.index for value in inputs):
                made = [replace(value, index=True) for value in self.plain(node)]
            else:
                made = list(self._rule(proto)(self, node))
            for name, value in zip(proto.output, made, strict=False):
                values[name] = replace(value, name=name)

    def plain(self, node: Node) -> list[Value]:
        """The values of a node as its operator, its attributes and its inputs."""
        inputs = {str(n): value.term for n, value in enumerate(node.values) if value is not None}
        said = {name: v for name, v in node.attributes.items() if not hasattr(v, "node")}
        term = self.terms.operator(node.proto.op_type, *inputs.values(), **said)
        others = range(1, len(node.proto.output))
        more = [self.terms.make(f"output {n}", {"of": term}) for n in others]
        return [Value(made) for made in (term, *more)]

    def constant(self, value: Value | None) -> Any:
        """The number that a constant without axes is, None for everything else."""
        found = None if value is None else self.indices.constant(value.name)
        return found.item() if found is not None and found.size == 1 else None

    def rows(self, name: str) -> int | None:
        """Rows of a tensor of the model, of every expert's where it is theirs."""
        name = name.replace(EVERY, "0")
        return int(self.model.tensor(name).shape[0]) if name in self.model.weights else None

    def parts(self, stem: str) -> list[tuple[str, int, int]]:
        """(tensor, its first row, the row after it) of tensors one after the other; [] where one
        is unknown.
        """
        found, start = [], 0
        for name in stem.split(JOINT):
            rows = self.rows(name)
            if rows is None:
                return []
            found.append((name, start, start + rows))
            start += rows
        return found

    def _rule(self, proto: Any) -> Rule:
        return self.rules.get((proto.domain, proto.op_type), Reader.plain)

    def _input(self, name: str) -> Value:
        return Value(self.terms.make("input", name=name), name, index=name in INPUTS)

    def _initializer(self, tensor: Any) -> Value:
        """A weight where it lies in the data file, else a constant."""
        if tensor.name not in self.folder.external:
            array = self.folder.arrays[tensor.name]
            numbers = tuple(array.ravel().tolist())
            term = self.terms.constant(array.dtype.name, array.shape, *numbers)
            return Value(term, tensor.name, index=True)
        name = self._first(tensor)
        rotary = name.startswith("rope.")
        dims = tuple(tensor.dims)
        term = self.terms.make("weight", name=name)
        weight = None if rotary else name
        return Value(term, tensor.name, rotary, weight, dims, last=dims[-1] if dims else None)

    def _first(self, tensor: Any) -> str:
        """The name of the first initializer at the same place of the data file."""
        place = tuple(sorted((entry.key, entry.value) for entry in tensor.external_data))
        return self._places.setdefault(place, str(tensor.name))


def _known(values: Mapping[str, Value], name: str) -> Value:
    if name not in values:
        raise CheckpointError(f"no node makes the value {name}, which another reads")
    return values[name]


def _plain(attribute: Any) -> Any:
    """An attribute's value; a body as it is."""
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.GraphProto):
        return value
    return value if isinstance(value, int | float | str) else str(value)
