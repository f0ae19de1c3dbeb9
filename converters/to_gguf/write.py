"""Rows through the plan into the file: slabs in, slabs out, a few threads, memory bound by the slab.

Every byte's place is known before the first is written, so slabs are written where they belong in any order. Files are
written beside their names and renamed when complete: whatever interrupts, the previous output stays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite, prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.container import RawKey, encode_header, padded
from converters.to_gguf.ggml import dequantize_rows, quantize_rows, row_bytes
from converters.to_gguf.keys import KeyValue
from converters.to_gguf.plan import Planned
from converters.to_gguf.splits import split_name
from ropeconv.casts import FLOATS, PEEK, BadValueError, cast_rows
from ropeconv.errors import CannotExpress, CheckpointError, OutputError
from ropeconv.output import Slab, claimed, explain, write_slabs
from ropeconv.target import Progress

SLAB = 4 << 20  # bytes of float32 a slab: fits the second-level caches' neighbourhood, amortises a call
UINT16, INT32 = 2, 5
TINY = 1e-3  # blocks whose values stay below this are read back: their scales are float16, and may have become zero


@dataclass(frozen=True)
class Part:
    """One file: its name, header bytes, tensors with their byte offsets, size."""

    path: Path
    header: bytes
    tensors: tuple[tuple[Planned, int], ...]
    size: int


def lay_out(out: Path, keys: Sequence[KeyValue | RawKey], tensors: Sequence[Planned], *, split: int | None = None) -> list[Part]:
    """Files for `tensors`, each at most `split` bytes of tensors when that is given (one tensor may exceed it)."""
    groups = _group(tensors, split)
    if len(groups) == 1:
        return [_part(out, keys, tensors)]
    names = [out.with_name(split_name(out.stem, n, len(groups))) for n in range(1, len(groups) + 1)]
    parts = []
    for number, (name, group) in enumerate(zip(names, groups, strict=True)):
        own = [
            KeyValue("split.no", number, UINT16),
            KeyValue("split.count", len(groups), UINT16),
            KeyValue("split.tensors.count", len(tensors), INT32),
        ]
        parts.append(_part(name, [*(keys if number == 0 else ()), *own], group))
    return parts


def _group(tensors: Sequence[Planned], split: int | None) -> list[list[Planned]]:
    groups: list[list[Planned]] = [[]]
    size = 0
    for tensor in tensors:
        nbytes = padded(_nbytes(tensor))
        if split is not None and groups[-1] and size + nbytes > split:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += nbytes
    return groups


def _part(path: Path, keys: Sequence[KeyValue | RawKey], tensors: Sequence[Planned]) -> Part:
    header, offsets = encode_header(keys, [(t.name, tuple(t.tensor.shape), t.type) for t in tensors])
    end = offsets[-1] + padded(_nbytes(tensors[-1])) if tensors else len(header)
    return Part(path, header, tuple(zip(tensors, offsets, strict=True)), end)


def _nbytes(tensor: Planned) -> int:
    shape = tensor.tensor.shape
    return prod(shape[:-1]) * row_bytes(tensor.type, shape[-1])


def write(parts: Sequence[Part], *, stale: Sequence[Path], threads: int, progress: Progress | None = None) -> None:
    """Write every part, or none: OutputError or CheckpointError leaves the previous files untouched and nothing behind.

    stale: files to remove once the new ones are in place.
    """
    written: list[tuple[Path, Part]] = []
    done, total = 0, sum(part.size for part in parts)
    try:
        for part in parts:
            path = part.path.with_name(f".{part.path.name}.part")
            with claimed(path, part.path) as descriptor:
                written.append((path, part))
                for size in write_slabs(descriptor, header=part.header, size=part.size, slabs=_slabs_of(part), threads=threads):
                    done += size
                    if progress is not None:
                        progress(done, total)
        for path, part in written:
            path.replace(part.path)
        for old in stale:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(explain(parts[0].path, error)) from error
    finally:
        for path, _ in written:
            with contextlib.suppress(OSError):
                path.unlink()


def _slabs_of(part: Part) -> Iterator[Slab]:
    for tensor, offset in part.tensors:
        per_row = _nbytes(tensor) // tensor.tensor.shape[0]
        for start, stop in _slabs(tensor):
            yield partial(convert, tensor, start, stop), offset + start * per_row


def _slabs(tensor: Planned) -> Iterator[tuple[int, int]]:
    rows = tensor.tensor.shape[0]
    step = max(1, SLAB // max(1, 4 * prod(tensor.tensor.shape[1:])))
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def convert(tensor: Planned, start: int, stop: int) -> NDArray[np.uint8]:
    """(stop - start, row bytes) of the target tensor.

    Raises CheckpointError for a value that is not a number, CannotExpress for one that the type cannot hold.
    """
    try:
        if tensor.verbatim and tensor.type not in FLOATS:
            return np.ascontiguousarray(_gather(tensor, start, stop, raw=True))
        rows = _gather(tensor, start, stop, raw=False)
        if tensor.shift:
            rows = rows.astype(np.float32) + np.float32(tensor.shift)
        if tensor.type in FLOATS:
            return np.ascontiguousarray(cast_rows(rows, tensor.type)).reshape(stop - start, -1).view(np.uint8)
        numbers = cast_rows(rows, "F32")
        data = quantize_rows(numbers, tensor.type)
        if _is_tiny(numbers) and numbers.any() and not dequantize_rows(data, tensor.type).any():
            raise CannotExpress(f"tensor {tensor.source}: its values are too small for {tensor.type}; take BF16 or F32")
        return data
    except BadValueError as error:
        place = f"tensor {tensor.source}, row {error.row + start}, column {error.column}"
        kind = CannotExpress if isfinite(error.value) else CheckpointError
        raise kind(f"{place}: value {error.value:g} {error.reason}") from error


def _is_tiny(numbers: NDArray[np.generic]) -> bool:
    """Whether every value stays below TINY; the first few nearly always tell."""
    return bool(np.abs(numbers.reshape(-1)[:PEEK]).max() < TINY) and bool(np.abs(numbers).max() < TINY)


def _gather(tensor: Planned, start: int, stop: int, *, raw: bool) -> NDArray[np.generic]:
    read = tensor.tensor.raw_rows if raw else tensor.tensor.rows
    if tensor.order is None:
        return read(start, stop)
    order = tensor.order[start:stop]
    low, high = int(order.min()), int(order.max()) + 1
    if high - low <= 4 * (stop - start):  # a reordering within heads stays close by
        return read(low, high)[order - low]
    return np.concatenate([read(int(row), int(row) + 1) for row in order])
