"""Asking llama.cpp in a process of its own, started with the first question: a file that it aborts
on ends that process, and an error line says so.
"""

from __future__ import annotations

import atexit
import importlib.util
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.llama.frames import receive, receive_into, send
from ropeconv.errors import CannotExpress, CheckpointError

CODE = """import json, sys
sys.path[:] = json.loads(sys.argv[1])
from ropeconv.kit.namespaces import open_namespace
open_namespace("converters")
from converters.to_gguf.llama.worker import serve
serve(int(sys.argv[2]))"""
QUIET = {"GGML_NO_BACKTRACE": "1"}  # else ggml starts a debugger on itself when it aborts
ERRORS: dict[str, type[Exception]] = {
    error.__name__: error for error in (CannotExpress, CheckpointError, MemoryError)
}
LAST = 8192  # bytes of what the process printed


class Worker:
    """A running process. Questions are asked one after another, of whatever threads."""

    def __init__(self) -> None:
        self.owner, self._lock = os.getpid(), threading.Lock()
        self._numbers, self._left = itertools.count(), list[int]()
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._line, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our own code
                [sys.executable, "-c", CODE, json.dumps(sys.path), str(other.fileno())],
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._printed,
                env=os.environ | QUIET,
            )

    @property
    def runs(self) -> bool:
        """Whether it can be asked: it lives, and is this process's and not a parent's."""
        return self.owner == os.getpid() and self._line.fileno() >= 0

    def ask(self, do: str, path: Path, **given: Any) -> Any:
        """The answer. CheckpointError with the reason when llama.cpp refuses the file, or dies."""
        return self._ask({"do": do, "path": str(path.absolute()), **given}, path)[0]

    def blocks(self, path: Path, **given: Any) -> Iterator[NDArray[np.float32]]:
        """The blocks of `run.logits`."""
        number = next(self._numbers)
        start = {"do": "start", "path": str(path.absolute()), "run": number, "given": given}
        self._ask(start, path)
        try:
            while (block := self._ask({"do": "next", "run": number}, path)[1]) is not None:
                yield block
        finally:
            # told with the next question: this may run while another one is being asked
            self._left.append(number)

    def _ask(self, asked: Any, path: Path) -> tuple[Any, NDArray[np.float32] | None]:
        with self._lock:
            try:
                left, self._left = self._left, []
                send(self._line, asked | {"stop": left})
                answer = receive(self._line)
                block = None
                if asked["do"] == "next" and answer.get("value"):
                    block = np.empty(answer["value"], np.float32)
                    receive_into(self._line, memoryview(block.data).cast("B"))
            except (EOFError, ConnectionError):
                raise CheckpointError(f"{path}: {self._last_words()}") from None
            except BaseException:
                self.end()  # a question is half asked
                raise
        if "error" in answer:
            told = answer["text"].replace(str(path.absolute()), str(path))
            raise ERRORS[answer["error"]](told)
        return answer["value"], block

    def _last_words(self) -> str:
        """Why the process died, by what it printed."""
        code = self._process.wait()
        self._printed.seek(0)
        printed = self._printed.read()[-LAST:].decode("utf-8", errors="replace")
        self.end()
        if code == -signal.SIGKILL:
            return "the process that runs llama.cpp was killed; is the memory used up?"
        lines = [line for line in printed.splitlines() if line.strip()]
        telling = [line for line in lines if re.search("GGML_|terminate|what\\(\\)|Error", line)]
        reason = re.sub(r"\S*/", "", (telling or lines or [f"exit code {code}"])[0]).strip()
        return f"llama.cpp's library aborts on it ({reason.rstrip('.')}); convert it again"

    def end(self) -> None:
        """End the process, whatever it is at."""
        self._line.close()
        if self.owner == os.getpid():
            self._process.kill()
            self._process.wait()
        self._printed.close()


_STATE: dict[str, Worker] = {}


def worker() -> Worker:
    """The process of this one; a new one where none runs. CannotExpress without llama.cpp."""
    if "worker" not in _STATE or not _STATE["worker"].runs:
        if importlib.util.find_spec("llama_cpp") is None:
            raise CannotExpress(
                "running a GGUF file needs llama.cpp: pip install 'ropeconv[llama]'"
            )
        _STATE["worker"] = Worker()
        atexit.register(_STATE["worker"].end)
    return _STATE["worker"]
