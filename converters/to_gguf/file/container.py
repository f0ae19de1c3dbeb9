"""The GGUF container, version 3, little endian: reader and writer of everything before the tensor
data.

In file order (ggml docs/gguf.md): 1 magic "GGUF" · 2 version u32 · 3 tensor count u64 · 4 key count
u64 5 per key: name · value type u32 · value (an array: element type u32, count u64, elements) 6 per
tensor: name · number of axes u32 · sizes u64, fastest axis first · type u32 · offset u64 into the
data section 7 zeros up to the alignment · 8 tensor data, each tensor padded to the alignment A
string is a u64 length and UTF-8 bytes. Nothing is allocated on a header's word before it fits the
file.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from converters.to_gguf.file.keys import ARRAY, BOOL, STRING, KeyValue
from ropeconv.errors import CheckpointError

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
MAX_AXES = 4
# more than any file in use has: a sparse file of terabytes bears out every claim
LONGEST_NAME = 65535  # ggml docs/gguf.md
LONGEST_VALUE = 64 << 20
LONGEST_ENTRY = 16384  # of an array: tokens and merges
MOST_ENTRIES = 1 << 24  # of an array
MOST_TENSORS = 200_000
MOST_KEYS = 65535


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file: shape slowest axis first, ggml type name, byte offset in the file,
    bytes.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class RawKey:
    """One key as it stands in a file: its value, types, and its bytes for a copy that changes
    nothing.
    """

    keyvalue: KeyValue
    raw: bytes


@dataclass(frozen=True)
class Header:
    """Everything before the tensor data."""

    keys: dict[str, RawKey]
    tensors: tuple[TensorInfo, ...]


@cache
def type_sizes() -> dict[str, tuple[int, int, int]]:
    """ggml type name -> (type number, elements a block, bytes a block)."""
    import gguf

    return {t.name: (int(t), *gguf.GGML_QUANT_SIZES[t]) for t in gguf.GGMLQuantizationType}


def read_header(path: Path) -> Header:
    """Keys and tensor table of one GGUF file. CheckpointError when it is damaged or claims more
    than it holds.
    """
    try:
        status = path.stat()
        return _read_header(path, status.st_mtime_ns, status.st_size)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable GGUF file ({error})") from error


@lru_cache(maxsize=4)
def _read_header(path: Path, _changed: int, _size: int) -> Header:
    """The header, read once for as long as the file stays as it is."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Reader(path, data).header()


class _Reader:
    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at, self.size = path, data, 0, len(data)

    def fail(self, reason: str) -> NoReturn:
        raise CheckpointError(f"{self.path}: corrupt GGUF file ({reason}); download it again")

    def take(self, size: int) -> bytes:
        if size > self.size - self.at:
            self.fail(f"it ends at byte {self.size}, its header needs {self.at + size}")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def text(self, longest: int = LONGEST_VALUE) -> str:
        size = self.number("Q")
        if size > longest:
            self.fail(f"a string of {size} bytes before byte {self.at}; {longest} at most are read")
        raw = self.take(size)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.fail(f"a string before byte {self.at} is not UTF-8")

    def texts(self, count: int) -> list[str]:
        """`count` strings; a vocabulary has hundreds of thousands, so this loop is kept tight."""
        data, at, length, found = self.data, self.at, struct.Struct("<Q").unpack_from, []
        try:
            for _ in range(count):
                end = at + 8 + length(data, at)[0]
                if end > self.size or end - at > LONGEST_ENTRY:
                    self.fail(f"it ends at byte {self.size}, a string at {at} needs {end}")
                found.append(str(data[at + 8 : end], "utf-8"))
                at = end
        except struct.error:
            self.fail(f"it ends at byte {self.size} inside a string array")
        except UnicodeDecodeError:
            self.fail(f"a string after byte {at} is not UTF-8")
        self.at = at
        return found

    def header(self) -> Header:
        if self.take(4) != MAGIC:
            raise CheckpointError(f"{self.path}: not a GGUF file")
        version = self.number("I")
        if version not in (2, VERSION):
            self.fail(f"version {version}; ropeconv reads 2 and 3, little endian")
        n_tensors, n_keys = self.number("Q"), self.number("Q")
        if n_tensors > MOST_TENSORS or n_keys > MOST_KEYS:
            self.fail(f"its header claims {n_tensors} tensors and {n_keys} keys")
        keys: dict[str, RawKey] = {}
        for _ in range(n_keys):
            key = self.key()
            if key.keyvalue.key in keys:
                self.fail(f"key {key.keyvalue.key} stands twice")
            keys[key.keyvalue.key] = key
        raw_infos = [self.tensor() for _ in range(n_tensors)]
        alignment = (
            keys["general.alignment"].keyvalue.value if "general.alignment" in keys else ALIGNMENT
        )
        if not isinstance(alignment, int) or alignment <= 0 or alignment % 8:
            self.fail(f"alignment {alignment}")
        start = self.at + -self.at % alignment
        return Header(keys, tuple(self.place(info, start) for info in raw_infos))

    def key(self) -> RawKey:
        start = self.at
        name = self.text(LONGEST_NAME)
        kind = self.number("I")
        value, sub = self.value(kind)
        return RawKey(KeyValue(name, value, kind, sub), self.data[start : self.at])

    def value(self, kind: int) -> tuple[Any, int | None]:
        if kind == STRING:
            return self.text(), None
        if kind in SCALARS:
            return self.number(SCALARS[kind]), None
        if kind != ARRAY:
            self.fail(f"value type {kind}")
        sub, count = self.number("I"), self.number("Q")
        if count > MOST_ENTRIES:
            self.fail(f"an array of {count} entries; {MOST_ENTRIES} at most are read")
        if sub == STRING:
            if count * 8 > self.size - self.at:
                self.fail(f"it ends at byte {self.size}, an array of {count} strings does not fit")
            return self.texts(count), sub
        if sub not in SCALARS:
            self.fail(f"array of type {sub}")
        dtype = np.dtype("<" + SCALARS[sub] if sub != BOOL else "?")
        return np.frombuffer(self.take(count * dtype.itemsize), dtype=dtype).tolist(), sub

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.text(LONGEST_NAME)
        axes = self.number("I")
        if not 1 <= axes <= MAX_AXES:
            self.fail(f"tensor {name} has {axes} axes")
        shape = tuple(self.number("Q") for _ in range(axes))
        return name, tuple(reversed(shape)), self.number("I"), self.number("Q")

    def place(self, info: tuple[str, tuple[int, ...], int, int], start: int) -> TensorInfo:
        name, shape, number, offset = info
        kind = next((kind for kind, (n, _, _) in type_sizes().items() if n == number), None)
        if kind is None:
            self.fail(f"tensor {name} has unknown type {number}")
        _, block, size = type_sizes()[kind]
        if 0 in shape or shape[-1] % block:
            self.fail(f"tensor {name} of shape {shape} cannot be {kind}")
        nbytes = prod(shape) // block * size
        if start + offset + nbytes > self.size:
            self.fail(f"tensor {name} ends at byte {start + offset + nbytes} of {self.size}")
        return TensorInfo(name, shape, kind, start + offset, nbytes)


def padded(size: int) -> int:
    """`size` rounded up to the alignment."""
    return size + -size % ALIGNMENT


def encode_header(
    keys: Iterable[KeyValue | RawKey], tensors: Sequence[tuple[str, tuple[int, ...], str]]
) -> tuple[bytes, list[int]]:
    """(bytes of steps 1 to 7, each tensor's byte offset in the file) for tensors (name, shape
    slowest first, type).
    """
    sizes = type_sizes()
    parts = [encode_key(key) if isinstance(key, KeyValue) else key.raw for key in keys]
    count, offsets, at = len(parts), [], 0
    for name, shape, kind in tensors:
        number, block, size = sizes[kind]
        parts.append(
            _text(name)
            + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), number, at)
        )
        offsets.append(at)
        at += padded(prod(shape) // block * size)
    header = MAGIC + struct.pack("<IQQ", VERSION, len(tensors), count) + b"".join(parts)
    header += bytes(-len(header) % ALIGNMENT)
    return header, [len(header) + offset for offset in offsets]


def encode_key(key: KeyValue) -> bytes:
    """Step 5 for one key."""
    head = _text(key.key) + struct.pack("<I", int(key.type))
    if int(key.type) != ARRAY:
        return head + _encode(int(key.type), key.value)
    if key.sub_type is None:
        raise TypeError(f"{key.key}: an array needs its element type")
    sub = int(key.sub_type)
    head += struct.pack("<IQ", sub, len(key.value))
    if sub == STRING:
        return head + b"".join(_text(item) for item in key.value)
    return head + struct.pack(f"<{len(key.value)}{SCALARS[sub]}", *key.value)


def _encode(kind: int, value: Any) -> bytes:
    return _text(value) if kind == STRING else struct.pack("<" + SCALARS[kind], value)


def _text(value: str) -> bytes:
    raw = value.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw
