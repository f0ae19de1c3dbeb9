"""The data files: who makes the bytes of each weight, and writing them slab by slab.

Everything is made by rows, so that one pass over a tensor fills its codes, scales and zero points
alike, and memory is bound by a slab.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_onnx.graph import Stored
from converters.to_onnx.quant._keep import keep_rows
from converters.to_onnx.quant._pack import Packed, scales_as
from converters.to_onnx.quant._packing import Packing
from converters.to_onnx.quant._types import Blocks
from ropeconv.errors import CannotExpress, CheckpointError
from ropeconv.kit.casts import BadValueError, cast_rows
from ropeconv.kit.output import Slab, created, write_slabs
from ropeconv.kit.slabs import place_error
from ropeconv.kit.views import as_bytes
from ropeconv.model import Tensor

SLAB = 4 << 20  # bytes of float32 a slab
Made = Sequence[NDArray[np.uint8]]
Make = Callable[[int, int], Made]
"""(start, stop) -> (rows, row bytes) for each part."""


@dataclass(frozen=True)
class Part:
    """One of the initializers of a matrix: the end of its name, its type, the shape of one row."""

    end: str
    dtype: str
    row: tuple[int, ...]


@dataclass(frozen=True)
class Rows:
    """Something whose bytes are made by rows. width: values a row; make: see Make."""

    parts: tuple[Stored, ...]
    rows: int
    width: int
    make: Make

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts)


@dataclass(frozen=True)
class Fill:
    """Rows of an initializer that come from one place. width: values a row; make: see data.Make."""

    rows: int
    width: int
    make: Make


def in_turn(every: Sequence[Rows], head: str) -> list[Rows]:
    """In the order of the model, in which inputs become known: those of the output head last, also
    where the embedding's rows, the first, are the head's.
    """
    return sorted(every, key=lambda rows: rows.parts[0].name.startswith(f"{head}_"))


def write_data(
    paths: Sequence[Path], rows: Sequence[Rows], *, sizes: Sequence[int], threads: int
) -> Iterator[int]:
    """Write the data files, each of so many bytes; yields bytes as they land."""
    with ExitStack() as files:
        first, *more = [files.enter_context(created(path)) for path in paths]
        yield from write_slabs(
            first,
            header=b"",
            size=sizes[0],
            slabs=_slabs(rows, starts=[0, *accumulate(sizes)]),
            threads=threads,
            more=list(zip(more, sizes[1:], strict=True)),
        )


def _slabs(every: Sequence[Rows], *, starts: Sequence[int]) -> Iterator[Slab]:
    """starts: of each file, were they one."""
    for rows in every:
        step = max(1, SLAB // (4 * rows.width))
        widths = [part.nbytes // rows.rows for part in rows.parts]
        for start in range(0, rows.rows, step):
            stop = min(rows.rows, start + step)
            pairs = zip(rows.parts, widths, strict=True)
            places = [starts[p.file] + p.offset + start * width for p, width in pairs]
            yield partial(rows.make, start, stop), places


def table_rows(values: NDArray[Any], start: int, stop: int) -> Made:
    """Rows of an array that was made here."""
    return (as_bytes(values[start:stop]),)


def float_rows(name: str, tensor: Tensor, dtype: str, shift: float, start: int, stop: int) -> Made:
    """Rows of a tensor plus `shift` in `dtype` (F32 or F16); an error for a value that is none."""
    try:
        numbers = tensor.rows(start, stop)
        if shift:
            numbers = numbers.astype(np.float32) + np.float32(shift)
        return (as_bytes(cast_rows(numbers, dtype)),)
    except BadValueError as error:
        raise _explain(name, error, start) from error


def packed_rows(
    packing: Packing,
    name: str,
    tensor: Tensor,
    blocks: Blocks,
    scales: str,
    start: int,
    stop: int,
) -> Made:
    """Codes, scales (of that type) and, unless symmetric, zero points of rows of a tensor."""
    try:
        packed = packing.pack(name, tensor.rows(start, stop), blocks)
        return _parts(replace(packed, scales=scales_as(packed.scales, scales, blocks)))
    except BadValueError as error:
        raise _explain(name, error, start) from error


def kept_rows(name: str, tensor: Tensor, blocks: Blocks, start: int, stop: int) -> Made:
    """The same of a tensor's own codes."""
    try:
        return _parts(keep_rows(tensor, blocks, start, stop))
    except BadValueError as error:
        raise _explain(name, error, start) from error


def _parts(packed: Packed) -> Made:
    parts: list[NDArray[Any]] = [packed.codes, packed.scales]
    if packed.zero_points is not None:
        parts.append(packed.zero_points)
    return [as_bytes(part) for part in parts]


def alternating_rows(makes: Sequence[Make], start: int, stop: int) -> Made:
    """The first row of each of several tensors, then the second of each, ... as one row each."""
    made = [make(start, stop) for make in makes]
    return [np.concatenate(parts, axis=1) for parts in zip(*made, strict=True)]


def _explain(name: str, error: BadValueError, start: int) -> CheckpointError | CannotExpress:
    reason = error.reason.replace("F16; take BF16 or F32", "fp16; take --type fp32")
    told = BadValueError(error.row, error.column, error.value, reason)
    return place_error(told, name, start=start)


def parts_of(columns: int, blocks: Blocks, *, flat: bool, scales: str) -> list[Part]:
    """What a matrix in blocks becomes. scales: their type."""
    count = blocks.count(columns)
    codes = (count * blocks.block_bytes,) if flat else (count, blocks.block_bytes)
    parts = [Part("_codes", "uint8", codes), Part("_scales", scales, (count,))]
    if not blocks.symmetric:
        parts.append(Part("_zero_points", "uint8", (blocks.zero_point_bytes(columns),)))
    return parts


def cut_of(part: Stored, start: int, rows: int, total: int) -> Stored:
    """`rows` of the `total` rows of an initializer, as a place of its own."""
    offset = part.offset + start * (part.nbytes // total)
    return replace(part, shape=(rows, prod(part.shape) // total), offset=offset)
