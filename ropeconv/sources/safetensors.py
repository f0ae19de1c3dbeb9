"""Lazy tensors over safetensors files. See `ropeconv.model.Tensor` for the contract."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ropeconv.errors import CheckpointError
from ropeconv.kit.float_types import FLOATS, numpy_dtype
from ropeconv.model import Rows, Tensor, row_count

LONGEST_HEADER = 32 << 20  # bytes: 200 thousand tensors; DeepSeek-V3 has 91 thousand in 163 files


@dataclass(frozen=True)
class SafetensorsTensor:
    """Rows of one tensor in a safetensors file, as views of the file's mapping. `data`: all its
    bytes.
    """

    name: str
    path: Path
    shape: tuple[int, ...]
    dtype: str
    data: NDArray[np.uint8]

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) numbers as stored; CheckpointError for a type that ropeconv does not
        read.
        """
        if self.dtype not in FLOATS:
            known = ", ".join(FLOATS)
            raise CheckpointError(
                f"tensor {self.name} is stored as {self.dtype}; ropeconv reads {known}"
            )
        numbers: Rows = self.raw_rows(start, stop).view(numpy_dtype(self.dtype))
        return numbers.reshape(stop - start, *self.shape[1:])

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, row bytes) as stored."""
        return self.data.reshape(row_count(self.shape), -1)[start:stop]


def open_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of one safetensors file; only its header is read. CheckpointError when the file is
    damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        _check_header_size(path)
        with safe_open(str(path), framework="np"):  # checks the header against the file's size
            pass
        return _map_safetensors(path)
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); download it again"
        ) from error


def _check_header_size(path: Path) -> None:
    """ValueError for a header that would take minutes to read."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if LONGEST_HEADER < size < path.stat().st_size:
        raise ValueError(f"a header of {size} bytes; no file in use has {LONGEST_HEADER}")


def _map_safetensors(path: Path) -> dict[str, Tensor]:
    """The library copies every slice that it gives; a mapping lets the cast read straight from the
    page cache.

    File: u64 header length, JSON header {name: {dtype, shape, data_offsets}}, data (safetensors
    README, "Format").
    """
    # a plain array over the mapping: the class of the mapping looks at every slice
    mapped: NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
    start = 8 + int(mapped[:8].view("<u8")[0])
    header = json.loads(mapped[8:start].tobytes())
    header.pop("__metadata__", None)
    found: dict[str, Tensor] = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        part = mapped[start + first : start + last]
        found[name] = SafetensorsTensor(name, path, tuple(entry["shape"]), entry["dtype"], part)
    return found


@contextmanager
def scattered(tensors: Iterable[Tensor]) -> Iterator[None]:
    """While a row is taken here and there, the kernel reads no neighbours along with it: over the
    19 thousand tensors of Qwen3-30B-A3B 3 s and not 60 where nothing is cached.
    """
    mapped = {id(one): one for tensor in tensors for one in _mapping(tensor)}
    for one in mapped.values():
        one.madvise(mmap.MADV_RANDOM)
    try:
        yield
    finally:
        for one in mapped.values():
            one.madvise(mmap.MADV_NORMAL)


def _mapping(tensor: Tensor) -> Iterator[mmap.mmap]:
    """The file's mapping under a tensor of this format."""
    base = tensor.data if isinstance(tensor, SafetensorsTensor) else None
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
        yield base
