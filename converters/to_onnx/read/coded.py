"""Which initializers hold codes of blocks, as the nodes say that read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from converters.to_onnx.quant._types import Blocks
from converters.to_onnx.read.folder import Folder
from converters.to_onnx.read.nodes import whole_numbers
from ropeconv.errors import CheckpointError
from ropeconv.kit.foreign import first_line


@dataclass(frozen=True)
class Coded:
    """How codes are to be read. columns: values of a row."""

    blocks: Blocks
    columns: int


Found = Iterator[tuple[str, Coded]]


def find_coded(folder: Folder) -> Mapping[str, Coded]:
    """Codes -> how they are read, for every node that multiplies by them or looks rows up.

    CheckpointError for a node that is not as onnxruntime wants it.
    """
    found: dict[str, Coded] = {}
    for node in folder.nodes:
        if node.op_type not in OPERATORS:
            continue
        try:
            found.update(OPERATORS[node.op_type](folder, node))
        except (KeyError, IndexError, ValueError, TypeError, ZeroDivisionError) as error:
            raise CheckpointError(
                f"{folder.graph}: node {node.name} ({node.op_type}) lacks an input or attribute "
                f"({first_line(error)}); convert it again"
            ) from error
    return found


def _product(_folder: Folder, node: Any) -> Found:
    said = whole_numbers(node)
    blocks = Blocks(said["bits"], said["block_size"], symmetric=not _has(node, 3))
    yield node.input[1], Coded(blocks, said["K"])


def _table(folder: Folder, node: Any) -> Found:
    codes = node.input[0]
    if codes.endswith("_by_row"):  # the same bytes as those that the head multiplies by
        return
    said = whole_numbers(node)
    blocks = Blocks(said["bits"], said["block_size"], symmetric=not _has(node, 3))
    yield codes, _in_rows(folder, codes, blocks)


def _experts(folder: Folder, node: Any) -> Found:
    said = whole_numbers(node)
    for place, zeros in ((2, 11), (5, 12)):
        codes, size = node.input[place], said["block_size"]
        blocks = Blocks(said["expert_weight_bits"], size, symmetric=not _has(node, zeros))
        yield codes, _in_rows(folder, codes, blocks)


def _scanned(folder: Folder, node: Any) -> Found:
    codes = folder.nodes.origin(node.input[0])
    zeros = folder.nodes.origin(node.input[2])
    blocks = Blocks(8, whole_numbers(node)["block_size"], symmetric=zeros not in folder.arrays)
    yield codes, _in_rows(folder, codes, blocks)


OPERATORS: dict[str, Callable[[Folder, Any], Found]] = {
    "MatMulNBits": _product,
    "GatherBlockQuantized": _table,
    "QMoE": _experts,
    "DequantizeLinear": _scanned,
}


def _in_rows(folder: Folder, codes: str, blocks: Blocks) -> Coded:
    """Of codes whose last axis is a row's bytes."""
    return Coded(blocks, folder.arrays[codes].shape[-1] * 8 // blocks.bits)


def _has(node: Any, place: int) -> bool:
    return len(node.input) > place and bool(node.input[place])
