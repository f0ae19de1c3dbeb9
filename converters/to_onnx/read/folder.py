"""A folder with a graph: its description, its metadata, its initializers mapped from the data file.

Nothing is trusted: a data file outside the folder, a length that the file does not have or a shape
that disagrees with its length is reported, not followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_onnx.client.names import GRAPH, GRAPHS, find_graphs
from converters.to_onnx.read.nodes import Nodes
from ropeconv.errors import CheckpointError
from ropeconv.kit.door import check_place
from ropeconv.kit.foreign import first_line


class Folder:
    """A folder with a graph, or a graph alone, or one of several.

    path: what the user named; folder: where the texts are. CheckpointError for a folder of several.
    """

    def __init__(self, path: Path) -> None:
        self.graph = _only_graph(path) if path.is_dir() else path
        inside = self.graph.parent.name == GRAPHS
        self.folder = self.graph.parent.parent if inside else self.graph.parent

    @cached_property
    def model(self) -> Any:
        """The ModelProto without the data."""
        import onnx

        try:
            model = onnx.load(str(self.graph), load_external_data=False)
        except Exception as error:  # protobuf's own error class is no public name
            raise CheckpointError(
                f"{self.graph}: not a readable ONNX file ({first_line(error)}); convert it again"
            ) from error
        if not all(isinstance(name, str) for name in _names(model.graph)):
            raise CheckpointError(
                f"{self.graph}: a name in the graph is no UTF-8 text; convert it again"
            )
        return model

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The model's own key/value pairs."""
        return {entry.key: entry.value for entry in self.model.metadata_props}

    @cached_property
    def nodes(self) -> Nodes:
        """The graph's nodes."""
        return Nodes(self.model.graph)

    @cached_property
    def external(self) -> frozenset[str]:
        """Names of the initializers that lie in the data file."""
        return frozenset(t.name for t in self.model.graph.initializer if t.external_data)

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The graph, then the files in which its initializers lie."""
        entries = (e for tensor in self.model.graph.initializer for e in tensor.external_data)
        names = {entry.value for entry in entries if entry.key == "location"}
        return (self.graph, *(self.graph.parent / name for name in sorted(names)))

    @cached_property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Every initializer, mapped from the data file.

        CheckpointError for one that is not there as it says.
        """
        return {tensor.name: self._array(tensor) for tensor in self.model.graph.initializer}

    def _array(self, tensor: Any) -> NDArray[Any]:
        try:
            return self._mapped(tensor)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise CheckpointError(
                f"{self.graph}: {tensor.name} is no array ({first_line(error)}); convert it again"
            ) from error

    def _mapped(self, tensor: Any) -> NDArray[Any]:
        from onnx import TensorProto, helper, numpy_helper

        if tensor.data_location != TensorProto.EXTERNAL:
            return np.asarray(numpy_helper.to_array(tensor))
        place = {entry.key: entry.value for entry in tensor.external_data}
        file = self.graph.parent / place.get("location", "")
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        offset = int(place.get("offset", 0))
        length = int(place.get("length", -1))
        if file.parent != self.graph.parent or not file.is_file():
            raise CheckpointError(
                f"{self.graph}: {tensor.name} lies in {place.get('location')!r}, "
                f"no file beside the graph"
            )
        check_place(file, inside=self.graph.parent)
        fits = length == dtype.itemsize * prod(tensor.dims) and min(tensor.dims, default=0) >= 0
        if not fits or offset < 0 or offset + length > file.stat().st_size:
            raise CheckpointError(
                f"{file}: too short or of another shape for {tensor.name}; convert it again"
            )
        return np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=tuple(tensor.dims))


def _only_graph(folder: Path) -> Path:
    found = find_graphs(folder)
    if len(found) > 1:
        names = ", ".join(str(graph.relative_to(folder)) for graph in found)
        raise CheckpointError(f"{folder}: holds several models ({names}); name one of them")
    return found[0] if found else folder / GRAPH


def _names(graph: Any) -> Iterator[Any]:
    """Of values and operators: bytes where protobuf could not read them as text."""
    for node in graph.node:
        yield from (node.op_type, node.name, node.domain, *node.input, *node.output)
    for value in (*graph.initializer, *graph.input, *graph.output):
        yield value.name
