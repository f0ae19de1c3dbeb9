"""Writing that cannot be seen half done: beside the name first, renamed when complete.

Whatever interrupts (an error, Ctrl-C, a kill, a full disk), the previous output stays; what a
killed run left behind is cleaned by the next one of the same name.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.errors import OutputError
from ropeconv.kit.replacing.claims import claimed_folder, remove
from ropeconv.kit.replacing.interrupts import held, placed

Bytes = NDArray[np.uint8]
Pieces = Bytes | Sequence[Bytes]
Places = int | Sequence[int]
Slab = tuple[Callable[[], Pieces], Places]
"""(what makes the bytes, their offset in the file), or several pieces made at once.

Made in any thread, written in order.
"""

# A folder that --force may replace holds one of these: it is a model's, not a user's home.
MARKS = ("config.json", "ropeconv.json", "genai_config.json")
RENAME_EXCHANGE = 2  # linux/fs.h
AT_FDCWD = -100  # fcntl.h


def explain(path: Path, error: OSError) -> str:
    """One line for a failed write: what, why, what to do."""
    reasons = {
        errno.ENOSPC: "the disk is full; free space or choose another folder with -o",
        errno.EDQUOT: "the disk quota is used up; choose another folder with -o",
        errno.EACCES: "the folder is not writable; choose another with -o",
        errno.EPERM: "the folder is not writable; choose another with -o",
        errno.EROFS: "the file system is read-only; choose another folder with -o",
        errno.ENOENT: "the folder does not exist; create it or choose another with -o",
        errno.EFBIG: "the file system does not take a file this large; "
        "write smaller ones (--split-max-size, --max-shard-size)",
    }
    return f"{path}: not written: {reasons.get(error.errno or 0, error.strerror or str(error))}"


@contextlib.contextmanager
def explaining(out: Path) -> Iterator[None]:
    """What the system refuses while `out` is written, as an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(explain(out, error)) from error


def is_there(path: Path) -> bool:
    """Whether the name is taken, a link included; OSError where the system cannot say, which
    os.path.lexists would take for no.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@contextlib.contextmanager
def taking_name(part: Path, name: Path, out: Path) -> Iterator[None]:
    """`part` gets the name of the output in the block: noted for `interrupts.outcome`, also where
    the system calls it failed and it is done all the same, as a network's file system may.
    """
    status = part.lstat()
    try:
        yield
    except BaseException as error:
        if not (os.path.lexists(name) and os.path.samestat(status, name.lstat())):
            raise
        placed(out)
        if not isinstance(error, OSError):
            raise
    else:
        placed(out)


@contextlib.contextmanager
def created(path: Path) -> Iterator[int]:
    """A descriptor of the empty file `path`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_slabs(
    descriptor: int,
    *,
    header: bytes,
    size: int,
    slabs: Iterable[Slab],
    threads: int,
    more: Sequence[tuple[int, int]] = (),
) -> Iterator[int]:
    """Write one file of `size` bytes; yields bytes as they land.

    more: (descriptor, size) of files whose offsets go on where the file before ends. The space is
    claimed first, so a full disk shows at once. The pool makes slabs and this thread writes: two
    threads that write one file would spin on its lock.
    """
    files = [(descriptor, size), *more]
    if hasattr(os, "posix_fallocate"):  # macOS has none
        for one, nbytes in files:
            os.posix_fallocate(one, 0, nbytes)
    _put(descriptor, header, 0)
    yield len(header)
    with ThreadPoolExecutor(threads) as pool:
        try:
            for data, offset in _made(slabs, pool, depth=2 * threads):
                for piece, place in _pieces(data, offset):
                    _put(*_place(files, place, piece))
                    yield piece.nbytes
        finally:
            pool.shutdown(cancel_futures=True)
    for one, nbytes in files:
        os.ftruncate(one, nbytes)


def _made(
    slabs: Iterable[Slab], pool: ThreadPoolExecutor, *, depth: int
) -> Iterator[tuple[Pieces, Places]]:
    pending: deque[tuple[Future[Pieces], Places]] = deque()
    for make, offset in slabs:
        pending.append((pool.submit(make), offset))
        if len(pending) >= depth:
            future, place = pending.popleft()
            yield future.result(), place
    for future, place in pending:
        yield future.result(), place


def _pieces(data: Pieces, offset: Places) -> Iterable[tuple[Bytes, int]]:
    if isinstance(offset, int):
        assert isinstance(data, np.ndarray)
        return [(data, offset)]
    return zip(data, offset, strict=True)


def _place(files: Sequence[tuple[int, int]], offset: int, piece: Bytes) -> tuple[int, Bytes, int]:
    """(descriptor, piece, its offset there) of what lies in one of several files."""
    for descriptor, size in files:
        if offset < size or descriptor == files[-1][0]:
            return descriptor, piece, offset
        offset -= size
    raise ValueError("no file")


def _put(descriptor: int, data: bytes | Bytes, offset: int) -> None:
    view = memoryview(data if isinstance(data, bytes) else data.data).cast("B")
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def check_folder(out: Path, *, force: bool, source: Path | None = None) -> None:
    """OutputError when `out` may not become the output folder.

    It exists, holds something else, or is the source's.
    """
    parent = out.resolve().parent
    if not parent.is_dir():
        raise OutputError(f"{out.parent}: no such folder; create it or choose another with -o")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"{out.parent}: the folder is not writable; choose another with -o")
    if source is not None and source.resolve().is_relative_to(out.resolve()):
        raise OutputError(f"{out}: the source lies there; choose another folder with -o")
    if not out.exists():
        return
    if not force:
        raise OutputError(f"{out} exists; pass --force to replace it")
    if not out.is_dir():
        raise OutputError(
            f"{out} is a file and a folder is to be written; choose another name with -o"
        )
    if any(out.iterdir()) and not any((out / mark).is_file() for mark in MARKS):
        raise OutputError(
            f"{out} holds no model ({MARKS[0]}), so it is not replaced; "
            "choose another folder with -o"
        )


@contextlib.contextmanager
def replacing_folder(out: Path, *, force: bool, source: Path | None = None) -> Iterator[Path]:
    """An empty hidden folder beside `out`, which takes its name when the block ends well.

    A previous `out` is swapped away in one step where the system can, and deleted only then. Inside
    the block a signal interrupts; before and after it, it waits. OutputError as `check_folder`, for
    a second writer, and for whatever the system refuses.
    """
    with explaining(out):
        check_folder(out, force=force, source=source)
        name = out.resolve()
        part = name.with_name(f".{name.name}.part")
        with held() as let_through, claimed_folder(part, out):
            _finish_swap(name)
            check_folder(out, force=force, source=source)
            with let_through():
                yield part
            with taking_name(part, name, out):
                _take_name(part, name)


def _old(out: Path) -> Path:
    """Where the previous folder waits between two renames, on a system that cannot swap."""
    return out.with_name(f".{out.name}.old")


def _finish_swap(out: Path) -> None:
    """What an earlier run was killed in: between the two renames, or before it deleted."""
    old = _old(out)
    if old.exists() and not out.exists():
        old.rename(out)
    remove(old)


def _take_name(part: Path, out: Path) -> None:
    """`part` becomes `out`; a previous `out` is gone, or `part`. Both are as before on an error."""
    if not out.exists():
        part.rename(out)
        return
    if _exchange(part, out):
        return
    old = _old(out)
    out.rename(old)
    try:
        part.rename(out)
    except BaseException:
        old.rename(out)
        raise
    with contextlib.suppress(OSError):
        remove(old)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step (renameat2); False where the system or file system cannot."""
    try:
        rename: Any = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # macOS, an older C library
        return False
    one, other = os.fsencode(first), os.fsencode(second)
    return bool(rename(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE) == 0)
