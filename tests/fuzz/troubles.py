"""Trouble at a system call of a running command: a signal to itself, or an error that the call ends
with. Whatever calls the system in the main thread passes here, by the interpreter's profiler, from
the instant at which the command first claims a name for its output.
"""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from signal import SIG_IGN, SIGHUP, SIGINT, SIGKILL, SIGTERM, signal
from types import FrameType
from typing import Any

SIGNALS = {"SIGKILL": SIGKILL, "SIGTERM": SIGTERM, "SIGHUP": SIGHUP, "SIGINT": SIGINT}
ERROR, CTRL_C = "EIO", "KeyboardInterrupt"
KINDS = (*SIGNALS, ERROR, CTRL_C)
MODULES = ("posix", "fcntl", "_io")
CALLS = {
    *("mkdir", "rmdir", "open", "close", "rename", "replace", "unlink", "link", "flock"),
    *("ftruncate", "pwrite", "posix_fallocate", "copy_file_range", "sendfile", "scandir", "lstat"),
    *("fstat", "stat"),
}
UNHEARD = 70  # exit code of a child that ended before its command began
CLAIMING = "/kit/replacing/claims.py"
WRITING = (CLAIMING, "/kit/output.py", "/kit/replacing/file_set.py")


@dataclass(frozen=True)
class Trouble:
    """kind: of KINDS. at: the call, counted from 0, that is hit. after: when it is done."""

    kind: str
    at: int
    after: bool


class Profile:
    """Counts the calls and makes the trouble; without one it only counts."""

    def __init__(self, trouble: Trouble | None) -> None:
        self.trouble, self.armed, self.count = trouble, False, 0

    def __call__(self, frame: FrameType, event: str, call: Any) -> None:
        """See `sys.setprofile`."""
        after = self.trouble is not None and self.trouble.after
        if event != ("c_return" if after else "c_call"):
            return
        if call.__module__ not in MODULES or call.__name__ not in CALLS:
            return
        self.armed = self.armed or _is_below(frame, (CLAIMING,))
        if not self.armed or not _is_below(frame, WRITING):
            return
        self.count += 1
        if self.trouble is not None and self.count - 1 == self.trouble.at:
            _strike(self.trouble, call.__name__)


def _strike(trouble: Trouble, name: str) -> None:
    if trouble.kind in SIGNALS:
        os.kill(os.getpid(), SIGNALS[trouble.kind])
    elif name == "close" and not trouble.after:
        return  # a close that fails has closed all the same
    elif trouble.kind == ERROR:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    else:
        raise KeyboardInterrupt


def _is_below(frame: FrameType | None, files: tuple[str, ...]) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.endswith(files):
            return True
        frame = frame.f_back
    return False


def run_command(arguments: list[str], told: Path, trouble: Trouble | None = None) -> int:
    """A child that runs the command and ends with its exit code; its process id.

    told: gets what it prints to stderr, and `<told>.calls` how many system calls it made.
    """
    process = os.fork()
    if process:
        return process
    status = UNHEARD
    try:
        os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")  # pytest's are others
        status = _run(arguments, told, trouble)
    finally:
        os._exit(status)


def _run(arguments: list[str], told: Path, trouble: Trouble | None) -> int:
    from ropeconv.cli import main

    profile = Profile(trouble)
    sys.setprofile(profile)
    try:
        main(arguments)
    except SystemExit as end:
        for number in SIGNALS.values():
            if number != SIGKILL:
                signal(number, SIG_IGN)  # the command is over
        sys.setprofile(None)
        if trouble is None:
            told.with_suffix(".calls").write_text(str(profile.count))
        return end.code if isinstance(end.code, int) else 1
    finally:
        sys.setprofile(None)
        sys.stderr.flush()
    return 0
