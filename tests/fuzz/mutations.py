"""Ways to spoil a file, each of them data: proposed by a generator of random numbers, written into
the corpus, applied again.

A mutation is [kind, ...] of JSON values. One that does not fit the file that it meets (the corpus
outlives the files that it was found in) leaves it as it is.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

Mutation = list[Any]

# JSON texts, some of which no value can be written as
VALUES = {
    "null": "null",
    "true": "true",
    "false": "false",
    "zero": "0",
    "one": "1",
    "minus": "-1",
    "half": "0.5",
    "minus half": "-0.5",
    "tiny": "1e-300",
    "int32": str(2**31),
    "int64": str(2**63 - 1),
    "uint64": str(2**64 - 1),
    "billion": "1000000000",
    "1e15": "1000000000000000",
    "1e15 float": "1e15",
    "10^30": "1" + "0" * 30,
    "1e400": "1e400",
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "empty text": '""',
    "text": '"word"',
    "digits": '"12"',
    "newline": '"a\\nropeconv: all is well"',
    "long text": '"' + "x" * 3000 + '"',
    "half character": '"\\ud800"',
    "zero byte": '"\\u0000"',
    "list": "[]",
    "list of null": "[null]",
    "list of texts": '["a", "b"]',
    "list of lists": "[[]]",
    "list of numbers": "[1, 2.5, -3]",
    "list of dicts": "[{}]",
    "dict": "{}",
    "dict of null": '{"a": null}',
    "nested": "[" * 60 + "]" * 60,
    "bomb": "[" * 20000,
}
NUMBERS = (
    0,
    1,
    2,
    7,
    255,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    10**9,
    2**40,
    2**63,
    2**64 - 1,
)
# what comes of reading a file that another mutation has spoiled
SPOILED = (ValueError, LookupError, OverflowError, TypeError, struct.error, RecursionError)
WORDS = ("B", "I", "Q", "f")


def propose(rng: Random, name: str, data: bytes) -> Mutation:
    """A mutation that suits the file's kind, which its name says."""
    own = next((make for end, make in PROPOSERS.items() if name.endswith(end)), None)
    if own is None or rng.random() < 0.1:
        return rng.choice((_propose_bytes, _propose_cut))(rng, data)
    try:
        return own(rng, data)
    except SPOILED:
        return _propose_bytes(rng, data)


def apply(mutation: Mutation, data: bytes) -> bytes:
    """The file with the mutation."""
    kind, *arguments = mutation
    try:
        return APPLIERS[kind](data, *arguments)
    except SPOILED:
        return data


# --- bytes ----------------------------------------------------------------------------------------


def _propose_bytes(rng: Random, data: bytes) -> Mutation:
    """Mostly near the start, where headers are."""
    end = len(data) if rng.random() < 0.4 else min(len(data), 4096)
    at = rng.randrange(end + 1)
    removed, added = rng.choice(((1, 1), (0, 1), (1, 0), (4, 4), (0, 40), (40, 0), (8, 8)))
    return ["bytes", at, removed, rng.randbytes(added).hex()]


def _apply_bytes(data: bytes, at: int, removed: int, added: str) -> bytes:
    return data[:at] + bytes.fromhex(added) + data[at + removed :]


def _propose_cut(rng: Random, data: bytes) -> Mutation:
    end = len(data) if rng.random() < 0.5 else min(len(data), 2048)
    return ["cut", rng.randrange(end + 1)]


def _apply_cut(data: bytes, at: int) -> bytes:
    return data[:at]


def _propose_word(rng: Random, places: list[int]) -> Mutation:
    code = rng.choice(WORDS)
    return ["word", rng.choice(places), code, rng.choice(NUMBERS)]


def _apply_word(data: bytes, at: int, code: str, number: int) -> bytes:
    size = struct.calcsize(code)
    value = float(number) if code == "f" else number % 256**size
    return data[:at] + struct.pack("<" + code, value) + data[at + size :]


# --- JSON -----------------------------------------------------------------------------------------


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Places of the value; of a long list or table some at its two ends."""
    found = [path]
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    else:
        return found
    for key, entry in inner if len(inner) < 40 else inner[:6] + inner[-6:]:
        found += _paths(entry, (*path, key))
    return found


def _propose_json(rng: Random, data: bytes) -> Mutation:
    if rng.random() < 0.06:
        return rng.choice((_propose_bytes, _propose_cut))(rng, data)
    path = list(rng.choice(_paths(json.loads(data))))
    action = rng.choice(("set", "set", "set", "set", "drop", "rename", "twice"))
    return ["json", path, action, rng.choice(list(VALUES))]


def _apply_json(data: bytes, path: list[Any], action: str, value: str) -> bytes:
    tree = json.loads(data)
    marker = "\x01value\x01"
    if not path:
        return VALUES[value].encode()
    *outer, last = path
    place = tree
    for key in outer:
        place = place[key]
    if action == "drop":
        del place[last]
    elif action == "twice" and isinstance(place, list):
        place.append(place[last])
    elif action == "twice":
        place["another"] = place[last]
    elif action == "rename" and isinstance(place, dict):
        place["renamed"] = place.pop(last)
    else:
        place[last] = marker
    return json.dumps(tree).replace(json.dumps(marker), VALUES[value]).encode()


# --- safetensors: u64 length, JSON, data ----------------------------------------------------------


def _propose_safetensors(rng: Random, data: bytes) -> Mutation:
    if rng.random() < 0.2:
        return ["word", 0, "Q", rng.choice(NUMBERS)]
    (size,) = struct.unpack_from("<Q", data)
    return ["header", _propose_json(rng, data[8 : 8 + size])]


def _apply_header(data: bytes, inner: Mutation) -> bytes:
    (size,) = struct.unpack_from("<Q", data)
    header = apply(inner, data[8 : 8 + size])
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


# --- GGUF -----------------------------------------------------------------------------------------

WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9


def _gguf_places(data: bytes) -> list[int]:
    """Offsets of every count, length, type and value of the header; of an array's some."""
    tensors, keys = struct.unpack_from("<QQ", data, 8)
    places, at = [4, 8, 16], 24
    for _ in range(keys):
        at = _pass_text(data, at, places)
        (kind,) = struct.unpack_from("<I", data, at)
        places += [at, at + 4]
        at = _pass_value(data, at + 4, kind, places)
    for _ in range(tensors):
        at = _pass_text(data, at, places)
        (axes,) = struct.unpack_from("<I", data, at)
        places += [at + 4 * word for word in range(2 * min(axes, 4) + 4)]
        at += 4 + 8 * axes + 12
    return places


def _pass_text(data: bytes, at: int, places: list[int]) -> int:
    places += [at, at + 8]
    return int(at + 8 + struct.unpack_from("<Q", data, at)[0])


def _pass_value(data: bytes, at: int, kind: int, places: list[int]) -> int:
    if kind == STRING:
        return _pass_text(data, at, places)
    if kind != ARRAY:
        return at + WIDTHS[kind]
    sub, count = struct.unpack_from("<IQ", data, at)
    if count > len(data):
        raise ValueError("an array longer than its file")
    places += [at + 4, at + 12]
    at += 12
    few: list[int] = []
    for number in range(count):
        at = _pass_value(data, at, sub, few if number < 5 else [])
    places += few
    return at


def _propose_gguf(rng: Random, data: bytes) -> Mutation:
    return _propose_word(rng, _gguf_places(data))


# --- ONNX, by the protobuf's own description ------------------------------------------------------


def _fields(message: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """(name, index, name, ...) of every field that is set; index None: the field as a whole."""
    found: list[tuple[Any, ...]] = []
    for field, value in message.ListFields():
        found.append((*path, field.name, None))
        entries = list(value) if _repeated(message, field.name) else [value]
        for number, entry in enumerate(entries):
            if hasattr(entry, "ListFields"):
                found += _fields(entry, (*path, field.name, number))
            else:
                found.append((*path, field.name, number))
    return found


def _repeated(message: Any, name: str) -> bool:
    return not isinstance(getattr(message, name), bytes | str | int | float) and not hasattr(
        getattr(message, name), "ListFields"
    )


def _graph(data: bytes) -> Any:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ValueError("spoiled already") from error


def _propose_onnx(rng: Random, data: bytes) -> Mutation:
    model = _graph(data)
    path = list(rng.choice(_fields(model)))
    action = rng.choice(("set", "set", "drop", "twice", "swap"))
    texts = ["", "word", "logits", "../../x", "Add", "/dev/zero", "x" * 3000]
    return ["onnx", path, action, rng.choice([*NUMBERS, -1, *texts])]


def _apply_onnx(data: bytes, path: list[Any], action: str, value: Any) -> bytes:
    from google.protobuf.message import EncodeError

    model = _graph(data)
    message: Any = model
    *outer, name, index = path
    for own, number in zip(outer[::2], outer[1::2], strict=True):
        message = (
            getattr(message, own)[number] if _repeated(message, own) else getattr(message, own)
        )
    _spoil(message, name, index, action, value)
    try:
        return bytes(model.SerializeToString())
    except EncodeError as error:  # half a character
        raise ValueError("cannot be written") from error


def _spoil(message: Any, name: str, index: int | None, action: str, value: Any) -> None:
    if index is None or not _repeated(message, name):
        if action == "set" and not _repeated(message, name):
            setattr(message, name, _like(getattr(message, name), value))
        else:
            message.ClearField(name)
        return
    entries = getattr(message, name)
    if action == "drop":
        del entries[index]
    elif action == "twice":
        entries.append(entries[index])
    elif action == "swap":
        entries[index], entries[-1] = entries[-1], entries[index]
    else:
        entries[index] = _like(entries[index], value)


def _like(old: Any, value: Any) -> Any:
    """The value in the type of the old one."""
    return str(value).encode() if isinstance(old, bytes) else type(old)(value)


# --- torch.save: a zip archive with a pickle ------------------------------------------------------


def _propose_bin(rng: Random, data: bytes) -> Mutation:
    members = _members(data)
    name = rng.choice([name for name in members if name.endswith((".pkl", "version", "byteorder"))])
    return ["member", name.rpartition("/")[2], _propose_bytes(rng, members[name])]


def _members(data: bytes) -> dict[str, bytes]:
    import io
    import zipfile
    import zlib

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error) as error:
        raise ValueError("spoiled already") from error


def _apply_member(data: bytes, end: str, inner: Mutation) -> bytes:
    import io
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in _members(data).items():
            own = name.rpartition("/")[2] == end
            archive.writestr(name, apply(inner, content) if own else content)
    return out.getvalue()


Proposer = Callable[[Random, bytes], Mutation]
PROPOSERS: dict[str, Proposer] = {
    ".json": _propose_json,
    ".safetensors": _propose_safetensors,
    ".gguf": _propose_gguf,
    ".onnx": _propose_onnx,
    ".bin": _propose_bin,
}
APPLIERS: dict[str, Callable[..., bytes]] = {
    "bytes": _apply_bytes,
    "cut": _apply_cut,
    "word": _apply_word,
    "json": _apply_json,
    "header": _apply_header,
    "onnx": _apply_onnx,
    "member": _apply_member,
}
