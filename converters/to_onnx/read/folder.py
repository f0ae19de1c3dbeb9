"""Reading a folder back: the graph's description, its initializers as lazy tensors under Hugging Face's names.

Nothing is trusted: a data file outside the folder, a length that the file does not have, a shape that disagrees with its
length or an initializer that no node reads is reported, not followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_onnx.client.files import GRAPH
from converters.to_onnx.quant._pack import Packed, unpack_rows
from converters.to_onnx.quant._types import Blocks
from converters.to_onnx.weights import JOINT
from ropeconv.errors import CheckpointError
from ropeconv.model import Rows, Tensor

DTYPES = {"float32": "F32", "float16": "F16"}


@dataclass(frozen=True)
class FloatTensor:
    """A float initializer; `shift` is taken off, where the graph multiplies by 1 + weight."""

    data: NDArray[Any]
    shift: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as stored, which is Hugging Face's."""
        return self.data.shape

    @property
    def dtype(self) -> str:
        """F32 or F16."""
        return DTYPES[self.data.dtype.name]

    def rows(self, start: int, stop: int) -> Rows:
        """The numbers."""
        rows = self.data[start:stop]
        return rows if self.shift == 0 else rows.astype(np.float32) - np.float32(self.shift)

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """The bytes."""
        return np.ascontiguousarray(self.data[start:stop]).reshape(stop - start, -1).view(np.uint8)


@dataclass(frozen=True)
class BlockTensor:
    """A matrix in blocks: its codes (n, b, bytes), scales (n, b), zero points or None."""

    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8] | None
    blocks: Blocks
    columns: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, columns)."""
        return len(self.codes), self.columns

    @property
    def dtype(self) -> str:
        """The name under which the proof has its limits: int4, int8."""
        return f"int{self.blocks.bits}"

    def rows(self, start: int, stop: int) -> Rows:
        """The numbers that onnxruntime multiplies by."""
        zeros = None if self.zero_points is None else np.asarray(self.zero_points[start:stop])
        packed = Packed(
            np.asarray(self.codes[start:stop]), np.asarray(self.scales[start:stop]), zeros
        )
        return unpack_rows(packed, self.blocks, columns=self.columns)

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """The codes' bytes."""
        return np.ascontiguousarray(self.codes[start:stop]).reshape(stop - start, -1)


class Folder:
    """A folder with a graph, or a graph alone. path: what the user named; folder: where the texts are."""

    def __init__(self, path: Path) -> None:
        self.graph = path / GRAPH if path.is_dir() else path
        inside = self.graph.parent.name == Path(GRAPH).parent.name
        self.folder = self.graph.parent.parent if inside else self.graph.parent

    @cached_property
    def model(self) -> Any:
        """The ModelProto without the data."""
        import onnx

        try:
            return onnx.load(str(self.graph), load_external_data=False)
        except Exception as error:  # protobuf's own error class is no public name
            raise CheckpointError(
                f"{self.graph}: not a readable ONNX file ({_line(error)}); convert it again"
            ) from error

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The model's own key/value pairs."""
        return {entry.key: entry.value for entry in self.model.metadata_props}

    @cached_property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Every initializer, mapped from the data file. CheckpointError for one that is not there as it says."""
        return {tensor.name: self._array(tensor) for tensor in self.model.graph.initializer}

    def _array(self, tensor: Any) -> NDArray[Any]:
        from onnx import TensorProto, helper, numpy_helper

        if tensor.data_location != TensorProto.EXTERNAL:
            return np.asarray(numpy_helper.to_array(tensor))
        place = {entry.key: entry.value for entry in tensor.external_data}
        file = self.graph.parent / place.get("location", "")
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        offset, length = int(place.get("offset", 0)), int(place.get("length", -1))
        if file.parent != self.graph.parent or not file.is_file():
            raise CheckpointError(
                f"{self.graph}: {tensor.name} lies in {place.get('location')!r}, no file beside the graph"
            )
        if (
            length != dtype.itemsize * int(np.prod(tensor.dims, dtype=np.int64))
            or offset + length > file.stat().st_size
        ):
            raise CheckpointError(
                f"{file}: too short or of another shape for {tensor.name}; convert it again"
            )
        return np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=tuple(tensor.dims))

    def tensors(self, shifted: frozenset[str]) -> dict[str, Tensor]:
        """The model's weights; `shifted`: norms that are stored as 1 + weight. Rotary tables and constants are left out."""
        found: dict[str, Tensor] = {}
        blocks = self._products()
        external = {t.name for t in self.model.graph.initializer if t.external_data}
        for name in sorted(external):
            stem = name.removesuffix("_codes")
            if name in blocks:
                node, columns = blocks[name]
                zeros = self.arrays.get(f"{stem}_zero_points")
                for part, rows in self._cuts(name, stem):
                    codes = self.arrays[name][rows].reshape(
                        rows.stop - rows.start, -1, node.block_bytes
                    )
                    scales = self.arrays[f"{stem}_scales"][rows]
                    found[part] = BlockTensor(
                        codes, scales, None if zeros is None else zeros[rows], node, columns
                    )
            elif (
                self.arrays[name].dtype.name in DTYPES
                and not name.startswith("rope.")
                and not name.endswith("_scales")
            ):
                for part, rows in self._cuts(name, name):
                    found[part] = FloatTensor(
                        self.arrays[name][rows], 1.0 if part in shifted else 0.0
                    )
        return found

    def _cuts(self, name: str, stem: str) -> Iterator[tuple[str, slice]]:
        """(tensor, its rows) of an initializer: all, or as the product is split, when several tensors share it.

        CheckpointError when the graph does not split it into as many parts, or not into as many rows, as it has.
        """
        parts, rows = stem.split(JOINT), len(self.arrays[name])
        counts = [rows] if len(parts) == 1 else self._split_of(name)
        if len(counts) != len(parts) or sum(counts) != rows or min(counts) < 1:
            raise CheckpointError(
                f"{self.graph}: {name} holds {len(parts)} tensors in {rows} rows, "
                f"but the graph splits its product into {counts or 'nothing'}; convert it again"
            )
        for part, count, end in zip(parts, counts, accumulate(counts), strict=True):
            yield part, slice(end - count, end)

    def _split_of(self, name: str) -> list[int]:
        """Sizes that the product by an initializer is split into, a bias added before or not; [] when it is not."""
        for _ in range(3):  # product, bias, split
            readers = self._readers.get(name, [])
            if len(readers) != 1:
                return []
            if readers[0].op_type == "Split" and len(readers[0].input) == 2:
                return [int(n) for n in self.arrays.get(readers[0].input[1], ())]
            name = readers[0].output[0]
        return []

    @cached_property
    def _readers(self) -> dict[str, list[Any]]:
        """Value -> the nodes that read it."""
        found: dict[str, list[Any]] = {}
        for node in self.model.graph.node:
            for value in node.input:
                found.setdefault(value, []).append(node)
        return found

    def _products(self) -> dict[str, tuple[Blocks, int]]:
        """Codes -> (blocks, columns), from the nodes that multiply by them or look rows up."""
        found: dict[str, tuple[Blocks, int]] = {}
        for node in self.model.graph.node:
            values = {a.name: a.i for a in node.attribute}
            if node.op_type == "MatMulNBits":
                symmetric = len(node.input) < 4 or not node.input[3]
                found[node.input[1]] = (
                    Blocks(values["bits"], values["block_size"], symmetric=symmetric),
                    values["K"],
                )
            elif node.op_type == "GatherBlockQuantized" and not node.input[0].endswith("_by_row"):
                columns = self.arrays[node.input[0]].shape[-1] * 8 // values["bits"]
                symmetric = len(node.input) < 4 or not node.input[3]
                found[node.input[0]] = (
                    Blocks(values["bits"], values["block_size"], symmetric=symmetric),
                    columns,
                )
        return found


def structure_problems(folder: Folder) -> list[str]:
    """What is wrong with the graph as it lies there, one line each: names, initializers, the checker's verdict."""
    import onnx

    graph = folder.model.graph
    read = {name for node in graph.node for name in node.input}
    stray = [tensor.name for tensor in graph.initializer if tensor.name not in read]
    problems = [f"initializer {name} is read by no node" for name in stray[:3]]
    wanted = {"input_ids", "attention_mask", "position_ids"}
    missing = wanted - {value.name for value in graph.input}
    problems += [f"input {name} is missing" for name in sorted(missing)]
    pairs = [
        (v.name, v.name.replace("past_key_values", "present"))
        for v in graph.input
        if v.name.startswith("past_")
    ]
    outputs = {value.name for value in graph.output}
    problems += [
        f"cache input {past} has no output {present}"
        for past, present in pairs
        if present not in outputs
    ]
    if {entry.domain for entry in folder.model.opset_import} <= {""}:
        try:
            onnx.checker.check_model(str(folder.graph), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            problems.append(f"onnx's checker: {_line(error)}")
    return problems


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
