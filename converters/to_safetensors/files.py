"""Weights into a folder: the source's files as they are, or every tensor slab by slab."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.to_safetensors.plan import Shard, ShardTensor
from ropeconv.errors import CheckpointError, OutputError
from ropeconv.kit.casts import BadValueError, cast_rows
from ropeconv.kit.output import Slab, created, write_slabs
from ropeconv.kit.slabs import cut, place_error
from ropeconv.kit.views import as_bytes
from ropeconv.model import row_count

CHUNK = 64 << 20  # bytes that the kernel copies between two steps of the progress bar


def keep_file(source: Path, folder: Path, *, link: bool) -> Iterator[int]:
    """The file under its own name in `folder`, linked or copied inside the kernel; yields bytes as
    they land.
    """
    target = folder / source.name
    if link:
        yield _link(source, target)
        return
    with source.open("rb") as read, target.open("wb") as written:
        left = os.fstat(read.fileno()).st_size
        while left:
            copied = _copy(read.fileno(), written.fileno(), min(left, CHUNK))
            if not copied:
                raise CheckpointError(
                    f"{source}: became shorter while it was copied; is another program writing it?"
                )
            left -= copied
            yield copied


def _link(source: Path, target: Path) -> int:
    real = source.resolve()  # a hub cache holds symbolic links
    try:
        os.link(real, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        reason = "another file system" if error.errno == errno.EXDEV else "no hard links there"
        raise OutputError(
            f"{target.parent.parent}: {source.name} cannot be linked ({reason}); leave --link out"
        ) from error
    return real.stat().st_size


def _copy(read: int, written: int, count: int) -> int:
    """`copy_file_range` shares blocks where the file system can; elsewhere the kernel copies."""
    try:
        return os.copy_file_range(read, written, count)
    except AttributeError:
        with os.fdopen(os.dup(read), "rb") as source, os.fdopen(os.dup(written), "wb") as target:
            start = target.tell()
            shutil.copyfileobj(source, target)
            return target.tell() - start
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return os.sendfile(written, read, None, count)


def write_shard(shard: Shard, folder: Path, *, threads: int) -> Iterator[int]:
    """One safetensors file; yields bytes as they land.

    Raises CheckpointError for a value that is not a number, CannotExpress for one that the type
    cannot hold.
    """
    path = folder / shard.name
    with created(path) as descriptor:
        yield from write_slabs(
            descriptor,
            header=shard.header,
            size=shard.size,
            slabs=_slabs(shard.tensors),
            threads=threads,
        )


def _slabs(tensors: Sequence[tuple[ShardTensor, int]]) -> Iterator[Slab]:
    for tensor, offset in tensors:
        per_row = tensor.nbytes // row_count(tensor.tensor.shape)
        for start, stop in cut(tensor.tensor.shape):
            yield partial(_convert, tensor, start, stop), offset + start * per_row


def _convert(tensor: ShardTensor, start: int, stop: int) -> NDArray[np.uint8]:
    """(stop - start, row bytes) of the target tensor."""
    try:
        rows = cast_rows(tensor.tensor.rows(start, stop), tensor.type)
    except BadValueError as error:
        raise place_error(error, tensor.name, start=start) from error
    return as_bytes(rows)
