"""What goes between the process that asks and the one that runs llama.cpp: JSON and raw numbers,
each as its length, 8 bytes, and its bytes. JSON, because a stranger's file may have the other one.
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from typing import Any

BATCH = 512  # tokens of one call, at most
CONTEXT_STEP = 256  # llama.cpp rounds a sequence's context up to this
LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Cache:
    """How keys and values are kept between calls. type: ggml's name of it; flash: attention as one
    fused operation.
    """

    type: str = "F32"
    flash: bool = False


def send(line: socket.socket, value: Any) -> None:
    """One JSON value."""
    send_bytes(line, json.dumps(value).encode())


def send_bytes(line: socket.socket, data: bytes | memoryview) -> None:
    """Bytes as they lie in memory."""
    line.sendall(LENGTH.pack(len(data)))
    line.sendall(data)


def receive(line: socket.socket) -> Any:
    """One JSON value; EOFError when the other process is gone."""
    data = bytearray(_length(line))
    _fill(line, memoryview(data))
    return json.loads(data)


def receive_into(line: socket.socket, memory: memoryview) -> None:
    """Bytes of a known number; EOFError when the other process is gone."""
    if _length(line) != len(memory):
        raise EOFError
    _fill(line, memory)


def _length(line: socket.socket) -> int:
    data = bytearray(LENGTH.size)
    _fill(line, memoryview(data))
    return int(LENGTH.unpack(data)[0])


def _fill(line: socket.socket, memory: memoryview) -> None:
    while memory:
        count = line.recv_into(memory)
        if not count:
            raise EOFError
        memory = memory[count:]
