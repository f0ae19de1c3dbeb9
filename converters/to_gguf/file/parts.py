"""Rows through the plan into the file: slabs in, slabs out, a few threads, memory bound by the
slab.

Every byte's place is known before the first is written, so slabs are written where they belong in
any order. Files are written beside their names and renamed when complete: whatever interrupts, the
previous output stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.file.container import RawKey, encode_header, padded
from converters.to_gguf.file.keys import INT32, UINT16, KeyValue
from converters.to_gguf.file.splits import split_name
from converters.to_gguf.plan import Plan
from converters.to_gguf.quant.ggml import dequantize_rows, quantize_rows, row_bytes
from converters.to_gguf.quant.types import PLAIN
from ropeconv.errors import CannotExpress
from ropeconv.importance.sums import Means
from ropeconv.kit.casts import PEEK, BadValueError, cast_rows
from ropeconv.kit.output import Slab, created, write_slabs
from ropeconv.kit.replacing.file_set import replacing_files
from ropeconv.kit.slabs import cut, place_error
from ropeconv.kit.views import Stacked, as_bytes
from ropeconv.model import Tensor
from ropeconv.target import Progress

# blocks whose values stay below this are read back: their scales are float16, and may have become
# zero
TINY = 1e-3


@dataclass(frozen=True)
class Part:
    """One file: its name, header bytes, tensors with their byte offsets, size."""

    path: Path
    header: bytes
    tensors: tuple[tuple[Plan, int], ...]
    size: int


@dataclass(frozen=True)
class Piece:
    """A tensor that is read and converted by its own rows: all of a plan, or one tensor of a stack.

    source: what the user knows it by. weights: (n, c) of its matrices, where they are weighed.
    """

    source: str
    tensor: Tensor
    type: str
    verbatim: bool
    weights: Means | None = None

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return _nbytes(self.tensor, self.type)


def lay_out(
    out: Path,
    keys: Sequence[KeyValue | RawKey],
    tensors: Sequence[Plan],
    *,
    split: int | None = None,
) -> list[Part]:
    """Files for `tensors`, each at most `split` bytes of tensors when that is given.

    One tensor may exceed it.
    """
    groups = _group(tensors, split)
    if len(groups) == 1:
        return [_part(out, keys, tensors)]
    count = len(groups)
    parts = []
    for number, group in enumerate(groups):
        own = [
            KeyValue("split.no", number, UINT16),
            KeyValue("split.count", count, UINT16),
            KeyValue("split.tensors.count", len(tensors), INT32),
        ]
        name = out.with_name(split_name(out.stem, number + 1, count))
        parts.append(_part(name, [*(keys if number == 0 else ()), *own], group))
    return parts


def _group(tensors: Sequence[Plan], split: int | None) -> list[list[Plan]]:
    groups: list[list[Plan]] = [[]]
    size = 0
    for tensor in tensors:
        nbytes = padded(_nbytes(tensor.tensor, tensor.type))
        if split is not None and groups[-1] and size + nbytes > split:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += nbytes
    return groups


def _part(path: Path, keys: Sequence[KeyValue | RawKey], tensors: Sequence[Plan]) -> Part:
    infos = [(plan.name, tuple(plan.tensor.shape), plan.type) for plan in tensors]
    header, offsets = encode_header(keys, infos)
    end = len(header)
    if tensors:
        end = offsets[-1] + padded(_nbytes(tensors[-1].tensor, tensors[-1].type))
    return Part(path, header, tuple(zip(tensors, offsets, strict=True)), end)


def _nbytes(tensor: Tensor, type_name: str) -> int:
    shape = tensor.shape
    return prod(shape[:-1]) * row_bytes(type_name, shape[-1])


def write(
    out: Path,
    parts: Sequence[Part],
    *,
    check: Callable[[], Sequence[Path]],
    threads: int,
    texts: Mapping[Path, str] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write every part of the model `out`, and what belongs beside it, or nothing.

    OutputError or CheckpointError leaves the previous files untouched and nothing behind. check:
    which further files the new ones replace, or an error. texts: content of the files beside.
    """
    texts = texts or {}
    done, total = 0, sum(part.size for part in parts)
    with replacing_files(out, [*(part.path for part in parts), *texts], check=check) as staged:
        for part, path in zip(parts, staged, strict=False):
            for landed in _write_part(part, path, threads):
                done += landed
                if progress is not None:
                    progress(done, total)
        for path, text in zip(staged[len(parts) :], texts.values(), strict=True):
            path.write_text(text)


def _write_part(part: Part, path: Path, threads: int) -> Iterator[int]:
    with created(path) as descriptor:
        yield from write_slabs(
            descriptor, header=part.header, size=part.size, slabs=_slabs(part), threads=threads
        )


def _slabs(part: Part) -> Iterator[Slab]:
    for plan, start_of_plan in part.tensors:
        offset = start_of_plan
        for piece in _pieces(plan):
            per_row = piece.nbytes // piece.tensor.shape[0]
            for start, stop in cut(piece.tensor.shape):
                yield partial(convert, piece, start, stop), offset + start * per_row
            offset += piece.nbytes


def _pieces(plan: Plan) -> Iterator[Piece]:
    """What is converted on its own: of a stack one tensor after the other."""
    parts = plan.tensor.parts if isinstance(plan.tensor, Stacked) else (plan.tensor,)
    alone = len(parts) > 1
    for number, (source, tensor) in enumerate(zip(plan.sources, parts, strict=False)):
        own = plan.weights
        own = own[number : number + 1] if own is not None and alone else own
        yield Piece(source, tensor, plan.type, plan.verbatim, own)


def convert(piece: Piece, start: int, stop: int) -> NDArray[np.uint8]:
    """(stop - start, row bytes) of the target tensor.

    Raises CheckpointError for a value that is not a number, CannotExpress for one that the type
    cannot hold.
    """
    if piece.verbatim:
        return np.ascontiguousarray(piece.tensor.raw_rows(start, stop))
    try:
        rows = piece.tensor.rows(start, stop)
        if piece.type in PLAIN:
            return as_bytes(cast_rows(rows, piece.type))
        numbers = cast_rows(rows, "F32").reshape(-1, rows.shape[-1])
        data = _quantise(numbers, piece, start, stop)
    except BadValueError as error:
        raise place_error(error, piece.source, start=start) from error
    if _is_tiny(numbers) and numbers.any() and not dequantize_rows(data, piece.type).any():
        raise CannotExpress(
            f"tensor {piece.source}: its values are too small for {piece.type}; take BF16 or F32"
        )
    return data.reshape(stop - start, -1)


def _quantise(
    numbers: NDArray[np.float32], piece: Piece, start: int, stop: int
) -> NDArray[np.uint8]:
    """(n, bytes) of numbers (n, c), which are rows start to stop of the piece."""
    if piece.weights is None:
        return quantize_rows(numbers, piece.type)
    if len(piece.weights) == 1:
        return quantize_rows(numbers, piece.type, piece.weights[0])
    matrices = np.split(numbers, stop - start)
    weights = piece.weights[start:stop]
    pairs = zip(matrices, weights, strict=True)
    return np.concatenate([quantize_rows(matrix, piece.type, own) for matrix, own in pairs])


def _is_tiny(numbers: NDArray[np.float32]) -> bool:
    """Whether every value stays below TINY; the first few nearly always tell."""
    peek = numbers.reshape(-1)[:PEEK]
    return bool(np.abs(peek).max() < TINY) and bool(np.abs(numbers).max() < TINY)
