"""SHA-256 of a converter's output without what names its maker: provenance and version strings.

Everything else counts, byte for byte and in the file's own order: GGUF keys, tensor infos, weights
with their padding; of an ONNX folder the graph, its weights and every text beside them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

GGUF_PROVENANCE = b"ropeconv.provenance"
FOLDER_PROVENANCE = "ropeconv.json"
STRING, ARRAY = 8, 9
SCALAR_BYTES = {
    0: 1,
    1: 1,
    2: 2,
    3: 2,
    4: 4,
    5: 4,
    6: 4,
    7: 1,
    10: 8,
    11: 8,
    12: 8,
}  # GGUF value type -> size
ALIGNMENT = b"general.alignment"
VARINT, LENGTH_DELIMITED = 0, 2  # protobuf wire types
PRODUCER_VERSION = 3  # field of ModelProto, onnx.proto


def digests(output: Path) -> dict[str, str]:
    """Path inside the output -> digest; a single file is known by its own name."""
    if output.is_file():
        return {output.name: digest(output)}
    files = [
        file for file in output.rglob("*") if file.is_file() and file.name != FOLDER_PROVENANCE
    ]
    return {file.relative_to(output).as_posix(): digest(file) for file in files}


def digest(file: Path) -> str:
    """Hexadecimal SHA-256 of one file."""
    pieces = PARTS.get(file.suffix, _whole)(file)
    total = hashlib.sha256()
    for piece in pieces:
        total.update(piece)
    return total.hexdigest()


def _whole(file: Path) -> Iterator[bytes]:
    yield file.read_bytes()


def _onnx_parts(file: Path) -> Iterator[bytes]:
    """The fields of a serialised ModelProto, as they stand, without the version of its producer."""
    data = file.read_bytes()
    at = 0
    while at < len(data):
        start = at
        tag, at = _varint(data, at)
        field, wire = tag >> 3, tag & 7
        value, at = _varint(data, at)
        if wire == LENGTH_DELIMITED:
            at += value
        elif wire != VARINT:
            raise ValueError(f"{file}: field {field} of wire type {wire}, which no ModelProto has")
        if field != PRODUCER_VERSION:
            yield data[start:at]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A protobuf integer and the position behind it: seven bits a byte, lowest first."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _gguf_parts(file: Path) -> Iterator[bytes]:
    """A GGUF file without its provenance, in file order."""
    data = file.read_bytes()
    # 1 magic and version, number of tensors, number of keys
    yield data[:16]
    tensors, keys = struct.unpack_from("<QQ", data, 8)
    # 2 keys: name, type, value
    at, alignment = 24, 32
    for _ in range(keys):
        start = at
        name, at = _string(data, at)
        at = _after_value(data, at)
        if name == ALIGNMENT:
            alignment = struct.unpack_from("<I", data, at - 4)[0]
        if name != GGUF_PROVENANCE:
            yield data[start:at]
    # 3 tensor infos: name, shape, type, offset from the start of the weights
    start = at
    for _ in range(tensors):
        _, at = _string(data, at)
        (axes,) = struct.unpack_from("<I", data, at)
        at += 4 + 8 * axes + 4 + 8
    yield data[start:at]
    # 4 weights, which start at a multiple of the alignment
    yield data[-(-at // alignment) * alignment :]


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    """A string and the position behind it."""
    (length,) = struct.unpack_from("<Q", data, at)
    return data[at + 8 : at + 8 + length], at + 8 + length


def _after_value(data: bytes, at: int) -> int:
    """The position behind the typed value at `at`."""
    (kind,) = struct.unpack_from("<I", data, at)
    at, count = at + 4, 1
    if kind == ARRAY:
        kind, count = struct.unpack_from("<IQ", data, at)
        at += 12
    if kind == STRING:
        for _ in range(count):
            _, at = _string(data, at)
        return at
    return at + count * SCALAR_BYTES[kind]


PARTS = {".gguf": _gguf_parts, ".onnx": _onnx_parts}
