"""One writer for a name: a hidden file or folder beside it, locked while it is written.

A lock is the kernel's and ends with its process, so that what a killed run left is known by being
unlocked, and is taken over or removed. POSIX calls: Linux and macOS.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ropeconv.errors import OutputError

TRIES = 100  # at a name that other runs claim and give back at the same time
TRIES_TO_REMOVE = 3
FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@contextlib.contextmanager
def claimed(path: Path, final: Path) -> Iterator[int]:
    """A descriptor of the file `path`, as an earlier run may have left it, locked.

    OutputError while another run is writing it. When the block ends, the file is removed unless it
    has taken another name.
    """
    with _giving_back(path):
        descriptor = _lock(path, FILE, final)
        try:
            yield descriptor
        finally:
            _close(descriptor)


@contextlib.contextmanager
def claimed_folder(path: Path, final: Path) -> Iterator[None]:
    """The folder `path`, empty and locked.

    OutputError while another run is writing it. When the block ends, whatever has the name then is
    removed.
    """
    with _giving_back(path):
        descriptor = _lock(path, FOLDER, final)
        try:
            _empty(path)
            yield
        finally:
            _close(descriptor)


def _lock(path: Path, flags: int, final: Path) -> int:
    """A locked descriptor of what has the name `path` now; made where nothing has."""
    for _ in range(TRIES):
        descriptor = None
        try:
            if flags == FOLDER:
                path.mkdir(exist_ok=True)
            descriptor = os.open(path, flags, 0o666)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_named(descriptor, path):
                return descriptor
        except BlockingIOError:
            _close(descriptor)
            break
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise
        except BaseException:
            _close(descriptor)
            raise
        _close(descriptor)
    raise OutputError(
        f"{final}: another process is writing it; wait for it or choose another name with -o"
    )


def _close(descriptor: int | None) -> None:
    """What was written is closed elsewhere; this gives the lock back, also where it fails."""
    if descriptor is not None:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether the open file still has the name: the run that had it before may have renamed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _giving_back(path: Path) -> Iterator[None]:
    """Nothing is left at `path` when the block ends, unless another run is writing it."""
    try:
        yield
    finally:
        insist(partial(_remove_unlocked, path))


def insist(clean_up: Callable[[], None]) -> None:
    """A removal that fails is tried again; what cannot be removed is the next run's to remove."""
    stopped: BaseException | None = None
    for _ in range(TRIES_TO_REMOVE):
        try:
            clean_up()
            break
        except OSError:
            continue
        except KeyboardInterrupt as error:
            stopped = error
    if stopped is not None:
        raise stopped


def _remove_unlocked(path: Path) -> None:
    """The lock is taken anew: another run may have claimed the name since it was ours."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_named(descriptor, path):
            remove(path)
    except BlockingIOError:
        return
    finally:
        _close(descriptor)


def remove(path: Path) -> None:
    """The file, or the folder with all that it holds; nothing where there is nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        remove(entry)
