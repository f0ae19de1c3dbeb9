"""Cases in children of this process: a crash, a hang or a flood of memory is a child's."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import BinaryIO

from tests.fuzz.endings import Case, make_case, try_case
from tests.fuzz.seeds import Subject, make_seeds

ADDRESS_SPACE = 4 << 30  # bytes
SECONDS = 20  # of a case, of its own
PATIENCE = 60  # seconds on the wall, on a machine that others use
BATCH = 250  # cases of one child: what libraries keep ends with it
Make = Callable[[Path, str], tuple[Case, Random]]


@dataclass
class _Child:
    process: int
    answers: BinaryIO
    left: list[str]
    since: float
    over: bool = False


def run_cases(
    root: Path, seeds: Sequence[str], subject: Subject | None = None, *, processes: int = 1
) -> Iterator[tuple[str, str]]:
    """(seed, ending) of every case; the sound inputs are made in the empty folder `root` first."""
    prepare(root)
    yield from run_made(root, seeds, partial(make_case, subject=subject), processes=processes)


def prepare(root: Path) -> None:
    """The sound inputs, made by a child: this process starts no thread that a fork would lose."""
    import gguf
    import onnx
    import onnxruntime
    import tokenizers
    import torch
    import transformers

    from ropeconv import registry

    assert all((gguf, onnx, onnxruntime, tokenizers, torch, transformers))
    registry.targets()
    registry.architectures()
    (root / "seeds").mkdir()
    process = os.fork()
    if process == 0:
        with _exiting():
            make_seeds(root / "seeds")
    if os.waitpid(process, 0)[1]:
        raise RuntimeError("the sound inputs cannot be made")


def run_made(
    root: Path, names: Sequence[str], make: Make, *, processes: int = 1
) -> Iterator[tuple[str, str]]:
    """(name, ending) of the cases that a child makes of each name."""
    children: list[_Child] = []
    left = list(names)
    while left or children:
        while left and len(children) < processes:
            children.append(_start(root, left[:BATCH], make))
            del left[:BATCH]
        for child in list(children):
            yield from _hear(child)
            if child.left and _is_over(child):
                yield child.left.pop(0), _end_of(child)
                children.remove(child)
                if child.left:
                    children.append(_start(root, child.left, make))
            elif not child.left:
                os.waitpid(child.process, 0)
                child.answers.close()
                children.remove(child)


def _start(root: Path, batch: list[str], make: Make) -> _Child:
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(read)
        with _exiting():
            _work(root, batch, make, write)
    os.close(write)
    return _Child(process, os.fdopen(read, "rb", buffering=0), batch, time.monotonic())


@contextlib.contextmanager
def _exiting() -> Iterator[None]:
    """A child ends here, whatever happens, and runs nothing of its parent's."""
    status = 1
    try:
        yield
        status = 0
    except BaseException as error:  # noqa: BLE001 - nothing of a child's may go on as its parent
        os.write(2, f"{error!r}\n".encode())
    finally:
        os._exit(status)


def _work(root: Path, batch: Sequence[str], make: Make, write: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 2)  # what libraries print
    place = root / f"case-{os.getpid()}"
    for name in batch:
        before = time.process_time()
        try:
            case, rng = make(root / "seeds", name)
            end = try_case(root / "seeds", case, rng, place)
        except Exception as error:  # noqa: BLE001 - told as an ending
            end = f"the fuzzer's own {error!r}: {traceback.format_exc()[-600:]!r}"
        spent = time.process_time() - before
        if spent > SECONDS:
            end = f"{spent:.0f} s: {end}"
        os.write(write, f"{end[:1000]}\n".encode(errors="replace"))


def _hear(child: _Child) -> Iterator[tuple[str, str]]:
    """Endings that the child has told."""
    while child.left and select.select([child.answers], [], [], 0.05)[0]:
        line = b""
        while not line.endswith(b"\n"):
            byte = child.answers.read(1)
            if not byte:
                child.over = True
                return
            line += byte
        child.since = time.monotonic()
        yield child.left.pop(0), line.decode().strip()


def _is_over(child: _Child) -> bool:
    """Whether the child died in its case, or has taken too long for it and is killed."""
    if time.monotonic() - child.since > PATIENCE:
        os.kill(child.process, signal.SIGKILL)
        return True
    return child.over


def _end_of(child: _Child) -> str:
    _, status = os.waitpid(child.process, 0)
    child.answers.close()
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number == signal.SIGKILL:
        return f"takes over {PATIENCE} s"
    return f"process ended by signal {number}"
