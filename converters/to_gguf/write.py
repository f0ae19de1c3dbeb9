"""Rows through the plan into the file: slabs in, slabs out, a few threads, memory bound by the slab.

Every byte's place is known before the first is written, so slabs are written where they belong in any order. Files are
written beside their names and renamed when complete: whatever interrupts, the previous output stays.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.container import RawKey, encode_header, padded
from converters.to_gguf.ggml import quantize_rows, row_bytes
from converters.to_gguf.keys import KeyValue
from converters.to_gguf.plan import Planned
from ropeconv.casts import FLOATS, BadValueError, cast_rows
from ropeconv.errors import CannotExpress, CheckpointError, OutputError
from ropeconv.target import Progress

SLAB = 4 << 20  # bytes of float32 a slab: fits the second-level caches' neighbourhood, amortises a call
UINT16, INT32 = 2, 5


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
    names = [out.with_name(f"{out.stem}-{n:05d}-of-{len(groups):05d}.gguf") for n in range(1, len(groups) + 1)]
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


def write(parts: Sequence[Part], *, force: bool, threads: int, progress: Progress | None = None) -> None:
    """Write every part, or none: OutputError or CheckpointError leaves the previous files untouched and nothing behind."""
    for part in parts:
        if part.path.exists() and not force:
            raise OutputError(f"{part.path} exists; pass --force to replace it")
    written: list[tuple[Path, Part]] = []
    done, total = 0, sum(part.size for part in parts)
    try:
        for part in parts:
            path = part.path.with_name(f".{part.path.name}.part")
            with _claimed(path, part.path) as descriptor:
                written.append((path, part))
                for size in _write_part(part, descriptor, threads=threads):
                    done += size
                    if progress is not None:
                        progress(done, total)
        for path, part in written:
            path.replace(part.path)
    except OSError as error:
        raise OutputError(_explain(parts[0].path, error)) from error
    finally:
        for path, _ in written:
            with contextlib.suppress(OSError):
                path.unlink()


def _explain(path: Path, error: OSError) -> str:
    reasons = {
        errno.ENOSPC: "the disk is full; free space or choose another folder with -o",
        errno.EDQUOT: "the disk quota is used up; choose another folder with -o",
        errno.EACCES: "the folder is not writable; choose another with -o",
        errno.EPERM: "the folder is not writable; choose another with -o",
        errno.EROFS: "the file system is read-only; choose another folder with -o",
        errno.ENOENT: "the folder does not exist; create it or choose another with -o",
        errno.EFBIG: "the file system does not take a file this large; pass --split-max-size",
    }
    return f"{path}: not written: {reasons.get(error.errno or 0, error.strerror or str(error))}"


@contextlib.contextmanager
def _claimed(path: Path, final: Path) -> Iterator[int]:
    """A descriptor of the empty file `path`, which an earlier run may have left when it was killed.

    OutputError while another run is writing it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows keeps two writers apart by itself
        pass
    except BlockingIOError as error:
        os.close(descriptor)
        raise OutputError(f"{final}: another process is writing it; wait for it or choose another name with -o") from error
    try:
        os.ftruncate(descriptor, 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _write_part(part: Part, descriptor: int, *, threads: int) -> Iterator[int]:
    """Write one file; yields bytes as they land. The space is claimed first, so a full disk shows at once."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, part.size)
    _put(descriptor, part.header, 0)
    yield len(part.header)
    with ThreadPoolExecutor(threads) as pool:
        try:
            for data, offset in _converted(part, pool, depth=2 * threads):
                _put(descriptor, data, offset)
                yield data.nbytes
        finally:
            pool.shutdown(cancel_futures=True)
    os.ftruncate(descriptor, part.size)


def _converted(part: Part, pool: ThreadPoolExecutor, *, depth: int) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """(slab, its byte offset) in file order, `depth` of them in the making.

    The pool converts and this thread writes: two threads that write one file would spin on its lock.
    """
    pending: deque[tuple[Future[NDArray[np.uint8]], int]] = deque()
    for tensor, offset in part.tensors:
        per_row = _nbytes(tensor) // tensor.tensor.shape[0]
        for start, stop in _slabs(tensor):
            pending.append((pool.submit(convert, tensor, start, stop), offset + start * per_row))
            if len(pending) >= depth:
                future, place = pending.popleft()
                yield future.result(), place
    for future, place in pending:
        yield future.result(), place


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
        return quantize_rows(cast_rows(rows, "F32"), tensor.type)
    except BadValueError as error:
        place = f"tensor {tensor.source}, row {error.row + start}, column {error.column}"
        kind = CannotExpress if isfinite(error.value) else CheckpointError
        raise kind(f"{place}: value {error.value:g} {error.reason}") from error


def _gather(tensor: Planned, start: int, stop: int, *, raw: bool) -> NDArray[np.generic]:
    read = tensor.tensor.raw_rows if raw else tensor.tensor.rows
    if tensor.order is None:
        return read(start, stop)
    order = tensor.order[start:stop]
    low, high = int(order.min()), int(order.max()) + 1
    if high - low <= 4 * (stop - start):  # a reordering within heads stays close by
        return read(low, high)[order - low]
    return np.concatenate([read(int(row), int(row) + 1) for row in order])


def _put(descriptor: int, data: bytes | NDArray[np.uint8], offset: int) -> None:
    view = memoryview(data if isinstance(data, bytes) else data.data).cast("B")
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
