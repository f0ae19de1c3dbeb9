"""Signals that ask to stop (SIGINT, SIGTERM, SIGHUP), kept away from the instants in which a lock,
a rename or a clean-up would be cut in two.

Python raises KeyboardInterrupt between any two instructions of the main thread. Inside `held` a
signal waits; inside `let_through` the first one raises, and those after it wait again, so that what
cleans up runs to its end.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class _State:
    """placed: outputs of this process that are complete under their names. waiting: a signal came
    while it was held and not let through.
    """

    placed: list[Path] = field(default_factory=list)
    held: bool = False
    through: bool = False
    waiting: bool = False


_STATE = _State()


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """The handler of a signal that asks to stop."""
    if _STATE.held and not _STATE.through:
        _STATE.waiting = True
        return
    _STATE.through = False
    raise KeyboardInterrupt


@contextlib.contextmanager
def held() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Signals wait until the block ends, or until the `let_through` that it is given.

    One that waited raises KeyboardInterrupt at the end of a block that ended well.
    """
    if _STATE.held or threading.current_thread() is not threading.main_thread():
        yield contextlib.nullcontext
        return
    python = [n for n in NUMBERS if signal.getsignal(n) is signal.default_int_handler]
    try:
        _STATE.held = True
        for number in python:
            signal.signal(number, interrupt)
        yield _let_through
    finally:
        waited, _STATE.waiting, _STATE.held = _STATE.waiting, False, False
        for number in python:
            signal.signal(number, signal.default_int_handler)
    if waited:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _let_through() -> Iterator[None]:
    try:
        _STATE.through = True
        if _STATE.waiting:
            _STATE.waiting = False
            raise KeyboardInterrupt
        yield
    finally:
        _STATE.through = False


def placed(path: Path) -> None:
    """Note that the output `path` is complete under its name."""
    _STATE.placed.append(path)


def forget_placed() -> None:
    """A new command begins."""
    _STATE.placed.clear()


def outcome() -> str:
    """What an interrupt left of the outputs, for a message."""
    if not _STATE.placed:
        return "the previous output, if any, is as it was"
    return f"{_STATE.placed[-1]} is written and complete"
