"""Weights in the graph: which initializers a matrix becomes, where its bytes lie, and the node that multiplies by it.

The seam between the decoder (blocks.py), which knows roles and no types, and types.py / pack.py, which know types and no
roles. `Store` hands out value names while the graph is built and remembers, for every matrix, who makes its bytes: `Rows`,
by slabs of rows, so that one pass over the source fills codes, scales and zero points alike.

Data file: initializers in the order of their first use; a quantised matrix is three of them. Large ones start at a page,
so that onnxruntime can map what it does not repack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_onnx.graph import MICROSOFT, Graph, Stored, Value, as_bytes
from converters.to_onnx.pack import pack_rows
from converters.to_onnx.types import Blocks, WeightType
from ropeconv.arch._base import Tag
from ropeconv.casts import FLOATS, BadValueError, cast_rows
from ropeconv.errors import CannotExpress, CheckpointError
from ropeconv.model import Model, Tensor

PAGE, LINE = 4096, 64  # bytes
FLOAT_NAMES = {dtype: name for name, dtype in FLOATS.items()}
Made = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class Rows:
    """Something whose bytes are made by rows. width: values a row; make: (start, stop) -> (rows, row bytes) for each part."""

    parts: tuple[Stored, ...]
    rows: int
    width: int
    make: Callable[[int, int], Made]

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts)


class Store:
    """Weights of `model` in the types of `kind`, placed one after the other in the data file `location`."""

    def __init__(self, graph: Graph, model: Model, kind: WeightType, *, location: str) -> None:
        self.graph, self.model, self.kind, self.location = graph, model, kind, location
        self.rows: list[Rows] = []
        self.size = 0
        self._values: dict[str, tuple[Value, ...]] = {}

    @property
    def names(self) -> list[str]:
        """Every tensor and table that was asked for."""
        return list(self._values)

    def vector(self, name: str) -> Value:
        """A norm or bias: (n,) in the type of the activations; 1 is added where the family's norm does."""
        if name not in self._values:
            weight, _ = self.model.weights[name]
            shift = 1.0 if Tag.NORM_PLUS_ONE in weight.tags else 0.0
            self._floats(name, self.model.tensor(name), shift=shift)
        return self._values[name][0]

    def table(self, name: str, values: NDArray[Any]) -> Value:
        """A table that was made here, in its own type."""
        part = self._place(name, str(values.dtype), values.shape)
        make = partial(_table_rows, values)
        self._add(name, Rows((part,), values.shape[0], prod(values.shape[1:]), make))
        return self._values[name][0]

    def linear(self, x: Value, name: str, *, bias: str | None, to: str) -> Value:
        """x (t, in) by the matrix `name` (out, in), plus the vector `bias`: (t, out)."""
        return self._product(x, name, self.kind.linear, bias=bias, to=to)

    def head(self, x: Value, name: str) -> Value:
        """Logits (t, v) by the output matrix, or by the token embedding that is tied to it."""
        return self._product(x, name, self._table_blocks(name), bias=None, to="logits_rows")

    def embed(self, ids: Value, name: str) -> Value:
        """(t, e) rows of the token embedding for (t,) ids."""
        blocks = self._table_blocks(name)
        if blocks is None:
            return self.graph.op("Gather", self._matrix(name), ids, name="embedding", axis=0)
        _, *rest = self._blocks(name, blocks)
        v, e = self.model.tensor(name).shape
        stored = next(rows.parts[0] for rows in self.rows if rows.parts[0].name == f"{name}_codes")
        # the same bytes with two axes: the head reads them with three
        flat = Stored(f"{name}_codes_by_row", "uint8", (v, e * blocks.bits // 8), stored.offset)
        codes = self.graph.external(flat, location=self.location)
        return self.graph.op(
            "GatherBlockQuantized", codes, ids, *rest, name="embedding", domain=MICROSOFT,
            bits=blocks.bits, block_size=blocks.size, gather_axis=0, quantize_axis=1,
        )  # fmt: skip

    def _table_blocks(self, name: str) -> Blocks | None:
        tied = self.model.dims.tied
        output = self.model.weights[name][0].role.value == "output"
        blocks = self.kind.head if tied or output else self.kind.embedding
        if blocks is None or output:
            return blocks
        return blocks.dividing(self.model.tensor(name).shape[1], what=name)

    def _product(self, x: Value, name: str, blocks: Blocks | None, *, bias: str | None, to: str) -> Value:
        extra = () if bias is None else (self.vector(bias),)
        if blocks is None:
            return self.graph.op("Gemm", x, self._matrix(name), *extra, name=to, transB=1)
        n, k = self.model.tensor(name).shape
        codes, scales, *zeros = self._blocks(name, blocks)
        inputs = [x, codes, scales, *zeros] if not extra else [x, codes, scales, *(zeros or [""]), "", *extra]
        return self.graph.op(
            "MatMulNBits", *inputs, name=to, domain=MICROSOFT,
            K=k, N=n, bits=blocks.bits, block_size=blocks.size, accuracy_level=self.kind.accuracy_level,
        )  # fmt: skip

    def _matrix(self, name: str) -> Value:
        if name not in self._values:
            self._floats(name, self.model.tensor(name), shift=0.0)
        return self._values[name][0]

    def _floats(self, name: str, tensor: Tensor, *, shift: float) -> None:
        part = self._place(name, self.kind.dtype, tuple(tensor.shape))
        make = partial(_float_rows, name, tensor, FLOAT_NAMES[self.kind.dtype], shift)
        self._add(name, Rows((part,), tensor.shape[0], prod(tensor.shape[1:]), make))

    def _blocks(self, name: str, blocks: Blocks) -> tuple[Value, ...]:
        """Codes, scales and, unless symmetric, zero points of a matrix."""
        if name not in self._values:
            tensor = self.model.tensor(name)
            n, columns = tensor.shape
            count = blocks.count(columns)
            shapes: dict[str, tuple[str, tuple[int, ...]]] = {
                "codes": ("uint8", (n, count, blocks.block_bytes)),
                "scales": ("float32", (n, count)),
            }
            if not blocks.symmetric:
                shapes["zero_points"] = ("uint8", (n, blocks.zero_point_bytes(columns)))
            parts = tuple(self._place(f"{name}_{part}", dtype, shape) for part, (dtype, shape) in shapes.items())
            self._add(name, Rows(parts, n, columns, partial(_packed_rows, name, tensor, blocks)))
        return self._values[name]

    def _place(self, name: str, dtype: str, shape: tuple[int, ...]) -> Stored:
        nbytes = Stored(name, dtype, shape, 0).nbytes
        offset = self.size + -self.size % (PAGE if nbytes >= 16 * PAGE else LINE)
        self.size = offset + nbytes
        return Stored(name, dtype, shape, offset)

    def _add(self, name: str, rows: Rows) -> None:
        self.rows.append(rows)
        self._values[name] = tuple(self.graph.external(part, location=self.location) for part in rows.parts)


def _table_rows(values: NDArray[Any], start: int, stop: int) -> Made:
    return (as_bytes(values[start:stop]),)


def _float_rows(name: str, tensor: Tensor, dtype: str, shift: float, start: int, stop: int) -> Made:
    try:
        numbers = tensor.rows(start, stop)
        if shift:
            numbers = numbers.astype(np.float32) + np.float32(shift)
        return (as_bytes(cast_rows(numbers, dtype)),)
    except BadValueError as error:
        raise _explain(name, error, start) from error


def _packed_rows(name: str, tensor: Tensor, blocks: Blocks, start: int, stop: int) -> Made:
    try:
        packed = pack_rows(tensor.rows(start, stop), blocks)
    except BadValueError as error:
        raise _explain(name, error, start) from error
    parts: list[NDArray[Any]] = [packed.codes, packed.scales]
    if packed.zero_points is not None:
        parts.append(packed.zero_points)
    return [as_bytes(part) for part in parts]


def _explain(name: str, error: BadValueError, start: int) -> CheckpointError | CannotExpress:
    place = f"tensor {name}, row {error.row + start}, column {error.column}"
    kind = CannotExpress if isfinite(error.value) else CheckpointError
    reason = error.reason.replace("F16; take BF16 or F32", "fp16; take --type fp32")
    return kind(f"{place}: value {error.value:g} {reason}")
