"""A graph under construction: nodes in order, small constants inline, weights by reference to the
data file.

Built on NodeProto directly: no shapes are inferred and nothing is optimised here; what is added is
what is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

MICROSOFT = "com.microsoft"
Value = str
"""The name of a value in the graph."""
# Below this a constant stays in the model file: onnxruntime cannot load shape and axis constants
# from external data.
INLINE = 1024


@dataclass(frozen=True)
class Stored:
    """An initializer in a data file: NumPy dtype name, shape, byte offset, which file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    file: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes in the data file."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Port:
    """A value that enters or leaves a body: NumPy dtype name, shape with names for what varies."""

    name: Value
    dtype: str
    shape: tuple[int | str, ...]


class Graph:
    """Nodes and initializers of one model. Every value name is given once."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.functions: list[Any] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        self._initializers: list[Any] = []
        self._taken: set[str] = set()
        self._declared: set[str] = set()
        self._filled: dict[tuple[float, str, tuple[int, ...]], Value] = {}

    def fresh(self, name: str) -> Value:
        """`name`, or `name` with a number when it is taken."""
        found = name
        number = 1
        while found in self._taken:
            number += 1
            found = f"{name}_{number}"
        self._taken.add(found)
        return found

    def op(
        self, kind: str, *inputs: Value, name: str, domain: str = "", **attributes: Any
    ) -> Value:
        """Add a node with one output, whose name starts with `name`."""
        return self.ops(kind, inputs, [name], domain=domain, **attributes)[0]

    def ops(
        self,
        kind: str,
        inputs: Sequence[Value],
        names: Sequence[str],
        *,
        domain: str = "",
        **attributes: Any,
    ) -> list[Value]:
        """Add a node with several outputs, each named as in `op`.

        "" is an output that is not wanted; a name of `declare` is kept as it is.
        """
        from onnx import helper

        outputs = [
            name if name == "" or name in self._declared else self.fresh(name) for name in names
        ]
        label = next(output for output in outputs if output)
        node = helper.make_node(
            kind, list(inputs), outputs, name=f"{label}/{kind}", domain=domain, **attributes
        )
        self.nodes.append(node)
        return outputs

    def constant(self, values: Any, dtype: str, *, name: str) -> Value:
        """A small constant inside the model file; equal ones are one."""
        from onnx import numpy_helper

        array = np.asarray(values, dtype)
        if array.nbytes > INLINE:
            raise ValueError(f"{name}: {array.nbytes} bytes belong into the data file")
        key = (dtype, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.fresh(name)
            self._initializers.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def named(self, name: str, values: Any) -> Value:
        """A small constant under exactly this name, which a reader of the file looks for."""
        from onnx import numpy_helper

        if name not in self._taken:
            self._taken.add(name)
            self._initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def scalar(self, value: int) -> Value:
        """An int64 constant without axes."""
        return self.constant(value, "int64", name=f"int_{value}")

    def cast(self, value: Value, dtype: str, *, name: str) -> Value:
        """`value` as `dtype`."""
        return self.op("Cast", value, name=name, to=element_type(dtype))

    def ints(self, *values: int) -> Value:
        """A one-axis int64 constant."""
        return self.constant(
            values, "int64", name="ints_" + "_".join(str(v).replace("-", "m") for v in values)
        )

    def filled(self, value: float, dtype: str, *shape: int, name: str) -> Value:
        """A constant of equal numbers, expanded where the graph is loaded; equal ones are one."""
        key = (value, dtype, shape)
        if key not in self._filled:
            one = self.constant(value, dtype, name=f"{name}_value")
            self._filled[key] = self.op("Expand", one, self.ints(*shape), name=name)
        return self._filled[key]

    def external(self, stored: Stored, *, location: str) -> Value:
        """An initializer whose bytes are in the data file."""
        from onnx import TensorProto

        tensor = TensorProto(
            name=self.fresh(stored.name), dims=stored.shape, data_type=element_type(stored.dtype)
        )
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": location, "offset": stored.offset, "length": stored.nbytes}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        self._initializers.append(tensor)
        return str(tensor.name)

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> Value:
        """Declare a graph input."""
        from onnx import helper

        self.inputs.append(
            helper.make_tensor_value_info(self.fresh(name), element_type(dtype), list(shape))
        )
        return name

    def declare(self, name: str, dtype: str, shape: Sequence[int | str]) -> Value:
        """Declare a graph output, to be produced by a node later."""
        from onnx import helper

        self.outputs.append(
            helper.make_tensor_value_info(self.fresh(name), element_type(dtype), list(shape))
        )
        self._declared.add(name)
        return name

    @contextmanager
    def body(self) -> Iterator[list[Any]]:
        """A list that takes the nodes which are added meanwhile; constants stay in the graph."""
        outer = self.nodes
        self.nodes = []
        try:
            yield self.nodes
        finally:
            self.nodes = outer

    def model(
        self,
        *,
        opsets: Mapping[str, int],
        ir_version: int,
        metadata: Mapping[str, str],
        producer: tuple[str, str],
    ) -> Any:
        """The ModelProto."""
        from onnx import helper

        graph = helper.make_graph(
            self.nodes, "decoder", self.inputs, self.outputs, self._initializers
        )
        imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        name, version = producer
        model = helper.make_model(
            graph,
            opset_imports=imports,
            producer_name=name,
            producer_version=version,
            functions=self.functions,
        )
        model.ir_version = ir_version
        helper.set_model_props(model, dict(metadata))
        return model


def make_body(
    name: str, nodes: Sequence[Any], *, inputs: Sequence[Port] = (), outputs: Sequence[Port]
) -> Any:
    """A GraphProto for the attribute of a node that runs it."""
    from onnx import helper

    ends = [
        [
            helper.make_tensor_value_info(port.name, element_type(port.dtype), list(port.shape))
            for port in ports
        ]
        for ports in (inputs, outputs)
    ]
    return helper.make_graph(list(nodes), name, *ends)


def element_type(dtype: str) -> int:
    """onnx's number for a NumPy dtype name."""
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
