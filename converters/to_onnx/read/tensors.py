"""A graph's initializers as lazy tensors under Hugging Face's names.

Matrices that share an initializer are told apart by the node that splits their product, or takes
their rows in turn, and experts by the first axis, so that what comes out is what the runtime
multiplies by.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_onnx.client.names import CODES
from converters.to_onnx.quant._pack import Packed, unpack_rows
from converters.to_onnx.quant._types import KEPT, NEAREST, Blocks, stored_name, weight_types
from converters.to_onnx.read.coded import Coded, find_coded
from converters.to_onnx.read.folder import Folder
from converters.to_onnx.read.nodes import whole_numbers
from converters.to_onnx.weights import EVERY, JOINT
from ropeconv.errors import CheckpointError
from ropeconv.kit.float_types import FLOAT_NAMES
from ropeconv.kit.views import as_bytes
from ropeconv.model import Rows, Tensor, row_count

Index = slice | tuple[int, slice]
"""Rows of an initializer, or of one entry of its first axis."""
# inputs of an operator of experts that have gate and up rows in turn: matrices, biases
GATES_AND_UPS = {"MoE": (2, 3), "QMoE": (2, 4)}
STEPS = 4  # nodes from a matrix to the split: dequantised, product, bias, split


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
        return FLOAT_NAMES[self.data.dtype.name]

    def rows(self, start: int, stop: int) -> Rows:
        """The numbers."""
        rows = self._by_row[start:stop]
        return rows if self.shift == 0 else rows.astype(np.float32) - np.float32(self.shift)

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """The bytes."""
        return as_bytes(self._by_row[start:stop])

    @property
    def _by_row(self) -> NDArray[Any]:
        return self.data.reshape(row_count(self.shape), *self.shape[1:])


@dataclass(frozen=True)
class BlockTensor:
    """A matrix in blocks: its codes (n, b, bytes), scales (n, b), zero points or None. chosen: how
    the codes were, as the file says.
    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.floating[Any]]
    zero_points: NDArray[np.uint8] | None
    blocks: Blocks
    columns: int
    chosen: str = NEAREST

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, columns)."""
        return len(self.codes), self.columns

    @property
    def dtype(self) -> str:
        """The name under which the proof has its limits."""
        return stored_name(self.blocks, self.chosen, self.scales.dtype.name)

    def rows(self, start: int, stop: int) -> Rows:
        """The numbers that onnxruntime multiplies by."""
        zeros = None if self.zero_points is None else np.asarray(self.zero_points[start:stop])
        codes = np.asarray(self.codes[start:stop])
        scales = np.asarray(self.scales[start:stop], np.float32)
        return unpack_rows(Packed(codes, scales, zeros), self.blocks, columns=self.columns)

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """The codes' bytes."""
        return as_bytes(self.codes[start:stop])


def read_tensors(folder: Folder, offsets: Mapping[str, float]) -> dict[str, Tensor]:
    """The model's weights; rotary tables and constants are left out.

    offsets: what the graph's norms have added to the source's numbers, by name.
    """
    found: dict[str, Tensor] = {}
    coded = find_coded(folder)
    for name in sorted(folder.external & folder.nodes.read):
        if name in coded:
            found.update(_blocks(folder, name, coded[name]))
        elif folder.arrays[name].ndim == 0:
            found[name] = FloatTensor(folder.arrays[name])
        elif _is_weight(folder, name):
            for part, index in _cuts(folder, name, name):
                found[part] = FloatTensor(folder.arrays[name][index], offsets.get(part, 0.0))
    return found


def _is_weight(folder: Folder, name: str) -> bool:
    floats = folder.arrays[name].dtype.name in FLOAT_NAMES
    return floats and not name.startswith("rope.") and not name.endswith("_scales")


def _blocks(folder: Folder, name: str, coded: Coded) -> Iterator[tuple[str, Tensor]]:
    """The tensors of codes, with the scales and zero points beside them.

    CheckpointError when they are not a whole number of blocks a row, with a scale each.
    """
    stem = name.removesuffix("_codes")
    scales, size = folder.arrays.get(f"{stem}_scales"), coded.blocks.block_bytes
    chosen = _chosen(folder)
    zeros = folder.arrays.get(f"{stem}_zero_points")
    for part, index in _cuts(folder, name, stem):
        codes = folder.arrays[name][index]
        count = codes.size // len(codes) // size if size else 0
        if scales is None or scales[index].shape != (len(codes), count) or not count:
            raise CheckpointError(
                f"{folder.graph}: {name} are no blocks of {coded.blocks.name} with a scale each; "
                f"convert it again"
            )
        yield (
            part,
            BlockTensor(
                codes.reshape(len(codes), count, size),
                scales[index],
                None if zeros is None else zeros[index],
                coded.blocks,
                coded.columns,
                chosen,
            ),
        )


def _chosen(folder: Folder) -> str:
    """How the file says that its codes were chosen."""
    kind = weight_types().get(folder.metadata.get("ropeconv.type", ""))
    if kind is not None and kind.kept:
        return KEPT
    return folder.metadata.get(CODES, NEAREST)


def _cuts(folder: Folder, name: str, stem: str) -> Iterator[tuple[str, Index]]:
    """(tensor, its rows) of an initializer, whole where it holds one tensor.

    CheckpointError when the graph does not cut it into as many parts, or not into as many rows, as
    it has.
    """
    parts, shape = stem.split(JOINT), folder.arrays[name].shape
    if EVERY not in stem:
        yield from zip(parts, _places(folder, name, len(parts), shape[0]), strict=True)
        return
    if len(shape) not in (2, 3):
        raise CheckpointError(
            f"{folder.graph}: {name} has {len(shape)} axes, matrices of experts have 3 and their "
            f"biases 2; convert it again"
        )
    places = _places(folder, name, len(parts), shape[1])
    for expert in range(shape[0]):
        for part, place in zip(parts, places, strict=True):
            yield part.replace(EVERY, str(expert)), (expert, place)


def _places(folder: Folder, name: str, parts: int, rows: int) -> Sequence[slice]:
    """The rows of each part."""
    if parts > 1 and _alternates(folder, name) and rows % parts == 0:
        return [slice(part, None, parts) for part in range(parts)]
    counts = [rows] if parts == 1 else _split_of(folder, name)
    if len(counts) != parts or sum(counts) != rows or min(counts) < 1:
        raise CheckpointError(
            f"{folder.graph}: {name} holds {parts} tensors in {rows} rows, "
            f"but the graph splits its product into {counts or 'nothing'}; convert it again"
        )
    return [slice(end - n, end) for n, end in zip(counts, accumulate(counts), strict=True)]


def _alternates(folder: Folder, name: str) -> bool:
    """Whether its rows are taken in turn: an operator of experts takes gate and up rows so."""
    readers = folder.nodes.readers(name)
    return bool(readers) and all(
        name in [node.input[place] for place in GATES_AND_UPS.get(node.op_type, ())]
        and whole_numbers(node).get("swiglu_fusion") == 1
        for node in readers
    )


def _split_of(folder: Folder, name: str) -> list[int]:
    """Sizes that the product by an initializer is split into; [] when it is not."""
    value = name
    for _ in range(STEPS):
        readers = folder.nodes.readers(value)
        if len(readers) != 1 or not readers[0].output:
            return []
        node = readers[0]
        if node.op_type == "Split" and len(node.input) == 2:
            return [int(n) for n in folder.arrays.get(node.input[1], ())]
        value = node.output[0]
    return []
