"""Values that follow from token ids, mask and positions alone: computed for chosen inputs by the
graph's own nodes, in onnxruntime.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_onnx.read.folder import Folder
from ropeconv.errors import CheckpointError
from ropeconv.kit.foreign import first_line

INPUTS = ("input_ids", "attention_mask", "position_ids")
Ints = NDArray[np.int64]


class Indices:
    """What the graph makes of its inputs before it reads a weight."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._makers = {name: node for node in folder.model.graph.node for name in node.output}
        self._sessions: dict[tuple[str, ...], Any] = {}

    def constant(self, name: str) -> NDArray[Any] | None:
        """The values of a constant of the graph file itself, None for everything else."""
        return None if name in self.folder.external else self.folder.arrays.get(name)

    def value(self, name: str) -> NDArray[Any]:
        """A value that no input of the graph changes, by what it is for one token."""
        return self.run([name], ids=np.zeros((1, 1), np.int64))[0]

    def run(
        self,
        names: Sequence[str],
        *,
        ids: Ints | None = None,
        mask: Ints | None = None,
        positions: Ints | None = None,
    ) -> list[NDArray[Any]]:
        """The values called `names` for (b, s) ids, (b, t) mask, (b, s) positions; what is not
        given is as long as what is, without padding and from 0 on. CheckpointError with
        onnxruntime's reason where it computes none.
        """
        like = next(array for array in (ids, positions, mask) if array is not None)
        shape = like.shape
        feeds = {
            "input_ids": np.zeros(shape, np.int64) if ids is None else ids,
            "attention_mask": np.ones(shape, np.int64) if mask is None else mask,
            "position_ids": np.arange(shape[1])[None].repeat(shape[0], 0)
            if positions is None
            else positions,
        }
        fixed = {name: self.folder.arrays[name] for name in names if name in self.folder.arrays}
        wanted = tuple(name for name in names if name not in fixed)
        found = dict(zip(wanted, self._run(wanted, feeds), strict=True))
        return [np.asarray({**fixed, **feeds, **found}[name]) for name in names]

    def _run(self, names: tuple[str, ...], feeds: Mapping[str, Ints]) -> list[NDArray[Any]]:
        computed = [name for name in names if name not in feeds]
        if not computed:
            return [feeds[name] for name in names]
        try:
            session = self._session(tuple(computed))
            own = {value.name for value in session.get_inputs()}
            given = {name: array for name, array in feeds.items() if name in own}
            made = session.run(computed, given)
        except Exception as error:
            reason = first_line(error)
            raise CheckpointError(f"what makes {computed[0]} does not run ({reason})") from error
        found = dict(zip(computed, made, strict=True))
        return [found[name] if name in found else feeds[name] for name in names]

    def _session(self, names: tuple[str, ...]) -> Any:
        if names not in self._sessions:
            import onnxruntime as ort

            options = ort.SessionOptions()
            options.log_severity_level = 4
            options.intra_op_num_threads = 1
            self._sessions[names] = ort.InferenceSession(
                self._model(names), options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[names]

    def _model(self, names: Sequence[str]) -> bytes:
        """The part of the graph that makes `names`."""
        import onnx

        whole = self.folder.model
        nodes, read = self._above(names)
        inputs = [value for value in whole.graph.input if value.name in read & set(INPUTS)]
        constants = [tensor for tensor in whole.graph.initializer if tensor.name in read]
        outputs = [onnx.ValueInfoProto(name=name) for name in names]
        graph = onnx.helper.make_graph(nodes, "indices", inputs, outputs, constants)
        model = onnx.helper.make_model(graph, opset_imports=list(whole.opset_import))
        model.ir_version = whole.ir_version
        return bytes(model.SerializeToString())

    def _above(self, names: Iterable[str]) -> tuple[list[Any], set[str]]:
        """(the nodes that `names` come from, in the graph's order; every value that they read)."""
        read: set[str] = set()
        waiting = list(names)
        wanted: set[str] = set()
        while waiting:
            name = waiting.pop()
            node = self._makers.get(name)
            if node is not None and node.name not in wanted:
                wanted.add(node.name)
                waiting += node.input
                read.update(node.input)
        return [node for node in self.folder.model.graph.node if node.name in wanted], read
