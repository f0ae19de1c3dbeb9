"""The process that runs llama.cpp: answers what it is asked until nobody asks any more.

Ctrl-C reaches it together with the process that asks, which then ends it.
"""

from __future__ import annotations

import resource
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.llama import library
from converters.to_gguf.llama.frames import Cache, receive, send, send_bytes
from ropeconv.errors import RopeconvError

Blocks = Iterator[NDArray[np.float32]]


def serve(descriptor: int) -> None:
    """Answer on an open socket until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    runs: dict[int, Blocks] = {}
    with socket.socket(fileno=descriptor) as line:
        while True:
            try:
                asked = receive(line)
            except (EOFError, ConnectionError):
                return
            for number in asked["stop"]:
                runs.pop(number, None)
            _answer(line, asked, runs)


def _answer(line: socket.socket, asked: Mapping[str, Any], runs: dict[int, Blocks]) -> None:
    try:
        answer, block = _do(asked, runs)
    except (RopeconvError, MemoryError) as error:
        send(line, {"error": type(error).__name__, "text": str(error)})
        return
    send(line, {"value": answer})
    if block is not None:
        send_bytes(line, memoryview(block.data).cast("B"))


def _do(
    asked: Mapping[str, Any], runs: dict[int, Blocks]
) -> tuple[Any, NDArray[np.float32] | None]:
    """(answer, the numbers that follow it)."""
    match asked["do"]:
        case "start":
            given = {**asked["given"], "cache": Cache(**asked["given"]["cache"])}
            runs[asked["run"]] = library.logits(Path(asked["path"]), **given)
            return None, None
        case "next":
            block = next(runs[asked["run"]], None)
            return None if block is None else list(block.shape), block
        case "tokenize":
            return library.tokenize(Path(asked["path"]), asked["text"]), None
        case "ends":
            return sorted(library.ends(Path(asked["path"]))), None
        case what:
            tables = {"vocabulary": library.vocabulary, "special_ids": library.special_ids}
            return tables[what](Path(asked["path"])), None
