"""llama.cpp's files of importance matrices, by the names of a GGUF file's tensors.

GGUF (tools/imatrix/imatrix.cpp): general.type "imatrix", imatrix.datasets, imatrix.chunk_count,
imatrix.chunk_size; two F32 tensors a matrix, NAME.in_sum2 (n, c), sums of squared inputs of n
matrices, and NAME.counts (n, 1). The older form, little endian: 1 number of entries i32; each: 2
length of its name i32, name · 3 calls i32 · 4 number of values i32, values f32, mean squares times
calls. Then, where they are there: 5 calls i32 · 6 length of the text's name i32, name.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.file.container import MAGIC, encode_header
from converters.to_gguf.file.keys import string, strings, uint32
from converters.to_gguf.read.tensors import GgufTensor, open_tensors, read_metadata
from ropeconv.errors import CheckpointError
from ropeconv.importance.sums import Importance, Sums, merge
from ropeconv.kit.door import parse_json
from ropeconv.kit.replacing.file_set import replacing_files

TYPE, KIND = "general.type", "imatrix"
TEXTS, CHUNKS, SIZE = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"
ABOUT = "ropeconv.imatrix"
SQUARES, COUNTS = ".in_sum2", ".counts"
LARGEST = 1 << 30  # bytes of the older form; 256 experts of 61 layers have 350 MB


def read_importance(paths: Sequence[Path]) -> Importance:
    """The files added up. CheckpointError for what is none, and for the older form beside others:
    it does not say how many tokens its means are of.
    """
    found = [_read(path) for path in paths]
    if len(found) > 1 and not all(one.chunk_size for one in found):
        raise CheckpointError(
            f"{', '.join(map(str, paths))}: a matrix in the older form does not say of how many "
            f"tokens it is, so it cannot be added to another; give one file"
        )
    return merge(found)


def _read(path: Path) -> Importance:
    try:
        with path.open("rb") as file:
            old = file.read(4) != MAGIC
        found = _read_older(path) if old else _read_gguf(path)
    except OSError as error:
        raise CheckpointError(f"{path}: not readable ({error})") from error
    for name, sums in found.sums.items():
        fine = np.isfinite(sums.squares).all() and (sums.squares >= 0).all()
        if not fine or (sums.counts < 0).any():
            raise _damaged(path, f"sums of {name} that no squares have")
    return found


def _read_gguf(path: Path) -> Importance:
    metadata, tensors = read_metadata(path), open_tensors(path)
    if metadata.get(TYPE) != KIND:
        raise CheckpointError(f"{path}: a GGUF file, and no importance matrix ({TYPE})")
    sums = {}
    for name, tensor in tensors.items():
        if name.endswith(SQUARES):
            stem = name.removesuffix(SQUARES)
            sums[stem] = _sums(path, stem, tensor, tensors.get(f"{stem}{COUNTS}"))
        elif not (name.endswith(COUNTS) and f"{name.removesuffix(COUNTS)}{SQUARES}" in tensors):
            raise _damaged(path, f"tensor {name}, which belongs to no matrix")
    return Importance(
        sums,
        texts=tuple(map(str, metadata.get(TEXTS, ()))),
        chunks=int(metadata.get(CHUNKS, 0)),
        chunk_size=int(metadata.get(SIZE, 0)),
        about=_about(path, metadata.get(ABOUT)),
    )


def _about(path: Path, text: Any) -> dict[str, Any]:
    try:
        value = {} if text is None else parse_json(text)
    except (ValueError, TypeError) as error:
        raise _damaged(path, f"{ABOUT}: {error}") from error
    return value if isinstance(value, dict) else {}


def _sums(path: Path, name: str, squares: GgufTensor, counts: GgufTensor | None) -> Sums:
    if counts is None:
        raise _damaged(path, f"no counts for {name}")
    number = np.array(counts.rows(0, counts.shape[0]), np.float64).reshape(-1)
    rows = np.array(squares.rows(0, squares.shape[0]), np.float64).reshape(squares.shape)
    if squares.dtype != "F32" or rows.ndim != 2 or len(number) != len(rows):
        raise _damaged(path, f"sums of {name} of shape {squares.shape}, {squares.dtype}")
    return Sums(rows, number.astype(np.int64))


def _read_older(path: Path) -> Importance:
    size = path.stat().st_size
    if not 4 <= size <= LARGEST:
        raise CheckpointError(f"{path}: no importance matrix of llama.cpp's ({size} bytes)")
    reader = _Older(path)
    sums = dict(reader.entry() for _ in range(reader.count("entries", at_most=1 << 20)))
    chunks, texts = reader.end()
    return Importance(sums, texts=texts, chunks=chunks)


class _Older:
    """A file in the older form, front to back."""

    def __init__(self, path: Path) -> None:
        self._path, self._data, self._at = path, path.read_bytes(), 0

    def _take(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise CheckpointError(
                f"{self._path}: no importance matrix of llama.cpp's, or one that was cut off at "
                f"byte {len(self._data)}; make it again"
            )
        return self._data[start : self._at]

    def count(self, what: str, *, at_most: int) -> int:
        """A number of things. CheckpointError for one that none can be."""
        number = int(struct.unpack("<i", self._take(4))[0])
        if not 0 <= number <= at_most:
            raise CheckpointError(
                f"{self._path}: no importance matrix of llama.cpp's ({number} {what}); make it "
                f"again"
            )
        return number

    def _text(self) -> str:
        return self._take(self.count("letters", at_most=4096)).decode("utf-8", "replace")

    def entry(self) -> tuple[str, Sums]:
        """Steps 2 to 4: name, sums."""
        name = self._text()
        calls = self.count("calls", at_most=1 << 30)
        values = self.count("values", at_most=LARGEST // 4)
        squares = np.frombuffer(self._take(4 * values), "<f4").astype(np.float64)[None]
        # no calls: the values are the means themselves
        return name, Sums(squares, np.array([calls or 1], np.int64))

    def end(self) -> tuple[int, tuple[str, ...]]:
        """Steps 5 and 6, where they are there."""
        if self._at + 8 > len(self._data):
            return 0, ()
        chunks = self.count("calls", at_most=1 << 30)
        return chunks, (self._text(),)


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path}: a damaged importance matrix ({why}); make it again")


def write_importance(importance: Importance, out: Path) -> None:
    """Write the GGUF form, or replace it in one step."""
    keys = [
        string(TYPE, KIND),
        strings(TEXTS, importance.texts),
        uint32(CHUNKS, importance.chunks),
        uint32(SIZE, importance.chunk_size),
    ]
    if importance.about:
        keys.append(string(ABOUT, json.dumps(importance.about, sort_keys=True)))
    arrays: dict[str, NDArray[np.float32]] = {}
    for name, sums in sorted(importance.sums.items()):
        arrays[f"{name}{SQUARES}"] = sums.squares.astype(np.float32)
        arrays[f"{name}{COUNTS}"] = sums.counts.astype(np.float32)[:, None]
    infos = [(name, array.shape, "F32") for name, array in arrays.items()]
    header, offsets = encode_header(keys, infos)
    with replacing_files(out, [out], check=list) as (staged,), staged.open("wb") as file:
        file.write(header)
        for offset, array in zip(offsets, arrays.values(), strict=True):
            file.write(bytes(offset - file.tell()))
            file.write(np.ascontiguousarray(array).tobytes())
        file.write(bytes(-file.tell() % 32))
