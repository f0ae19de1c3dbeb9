"""Keys and tensors of a GGUF file and its splits, as they lie there."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.file.container import MAGIC, Header, RawKey, TensorInfo
from converters.to_gguf.file.splits import read_headers
from converters.to_gguf.quant.ggml import dequantize_rows, row_bytes
from converters.to_gguf.read.key_kinds import check_kinds
from ropeconv.errors import CheckpointError
from ropeconv.kit.float_types import FLOATS, numpy_dtype
from ropeconv.model import Rows


@dataclass(frozen=True)
class GgufTensor:
    """Rows of one tensor as the file stores them; `data` maps the file: (rows, row bytes)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: NDArray[np.uint8]

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, row bytes) as stored."""
        return self.data[start:stop]

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) numbers: floats as stored, blocks dequantised to float32."""
        raw, shape = self.data[start:stop], (stop - start, *self.shape[1:])
        if self.dtype in FLOATS:
            numbers: Rows = np.ascontiguousarray(raw).view(numpy_dtype(self.dtype))
            return numbers.reshape(shape)
        rows = raw.reshape(prod(shape[:-1]), -1)
        return dequantize_rows(np.ascontiguousarray(rows), self.dtype).reshape(shape)

    def entry(self, number: int) -> GgufTensor:
        """One entry of the first axis: an expert of a stack."""
        shape = self.shape[1:]
        return GgufTensor(self.name, shape, self.dtype, self.data[number].reshape(shape[0], -1))


def recognizes(path: Path) -> bool:
    """Whether `path` is a GGUF file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def raw_keys(headers: list[tuple[Path, Header]]) -> dict[str, RawKey]:
    """Keys of all splits, the first file's first, without the split bookkeeping."""
    keys: dict[str, RawKey] = {}
    for _, header in headers:
        for name, key in header.keys.items():
            if not name.startswith("split."):
                keys.setdefault(name, key)
    return keys


def read_metadata(path: Path) -> dict[str, Any]:
    """Every key of the file and its splits as a plain Python value; CheckpointError for one of
    another kind than llama.cpp takes.
    """
    found = {name: key.keyvalue.value for name, key in raw_keys(read_headers(path)).items()}
    check_kinds(found)
    return found


def open_tensors(path: Path) -> dict[str, GgufTensor]:
    """GGUF name -> tensor, mapped, for the file and its splits."""
    tensors: dict[str, GgufTensor] = {}
    for part, header in read_headers(path):
        mapped: NDArray[np.uint8] = np.memmap(part, dtype=np.uint8, mode="r")
        for info in header.tensors:
            if info.name in tensors:
                raise CheckpointError(f"{part}: tensor {info.name} stands twice")
            tensors[info.name] = GgufTensor(
                info.name, info.shape, info.type, _as_rows(mapped, info)
            )
    return tensors


def _as_rows(mapped: NDArray[np.uint8], info: TensorInfo) -> NDArray[np.uint8]:
    part = mapped[info.offset : info.offset + info.nbytes]
    if len(info.shape) == 1:  # one element a row
        if info.nbytes % info.shape[0]:
            raise CheckpointError(
                f"tensor {info.name} of the GGUF file is a vector in {info.type} blocks; "
                f"convert it again"
            )
        return part.reshape(info.shape[0], -1)
    width = row_bytes(info.type, info.shape[-1]) * prod(info.shape[1:-1])
    return part.reshape(info.shape[0], width)
