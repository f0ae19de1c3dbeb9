"""Weights in the graph: which initializers a matrix becomes, where its bytes lie, and the node that multiplies by it.

The seam between the decoder (blocks/), which knows blocks and no types, and quant/, which knows types and no blocks. `Store` hands out value names while the graph is built and remembers, for every matrix, who makes its bytes: `Rows`,
by slabs of rows, so that one pass over the source fills codes, scales and zero points alike.

Data file: initializers in the order of their first use; a quantised matrix is three of them. Large ones start at a page,
so that onnxruntime can map what it does not repack. Matrices that multiply the same x are one initializer, their rows one
after the other and their names joined by JOINT, and the node that splits the product says where each begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_onnx.graph import MICROSOFT, Graph, Stored, Value
from converters.to_onnx.quant._pack import pack_rows
from converters.to_onnx.quant._types import Blocks, WeightType
from ropeconv.arch.blocks.weight import Role
from ropeconv.errors import CannotExpress, CheckpointError
from ropeconv.kit.casts import BadValueError, cast_rows
from ropeconv.kit.float_types import FLOAT_NAMES
from ropeconv.kit.slabs import place_error
from ropeconv.kit.views import as_bytes
from ropeconv.model import Model, Tensor

PAGE, LINE = 4096, 64  # bytes
JOINT = "+"
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
    """Weights of `model` in the types of `kind`, placed one after the other in the data file `location`.

    flat: activations are (b*s, e) and products Gemm, else (b, s, e) and onnxruntime's FusedMatMul.
    """

    def __init__(
        self, graph: Graph, model: Model, kind: WeightType, *, location: str, flat: bool
    ) -> None:
        self.graph, self.model, self.kind, self.location, self.flat = (
            graph,
            model,
            kind,
            location,
            flat,
        )
        self.rows: list[Rows] = []
        self.size = 0
        self._values: dict[tuple[str, ...], tuple[Value, ...]] = {}

    @property
    def names(self) -> list[str]:
        """Every tensor and table that was asked for."""
        return [name for names in self._values for name in names]

    def vector(self, name: str) -> Value:
        """A norm or bias: (n,) in the type of the activations; 1 is added where the family's norm does."""
        return self._floats((name,), shift=self.model.weights[name].weight.offset)

    def table(self, name: str, values: NDArray[Any]) -> Value:
        """A table that was made here, in its own type."""
        part = self._place(name, str(values.dtype), values.shape)
        make = partial(_table_rows, values)
        self.rows.append(Rows((part,), values.shape[0], prod(values.shape[1:]), make))
        self._values[name,] = (self.graph.external(part, location=self.location),)
        return self._values[name,][0]

    def linear(self, x: Value, names: Sequence[str], *, biases: Sequence[str], to: str) -> Value:
        """x (..., in) by the matrices `names` (out, in), plus the vectors `biases`: (..., all outs one after the other)."""
        return self._product(x, tuple(names), self.kind.linear, biases=tuple(biases), to=to)

    def head(self, x: Value, name: str, *, to: str) -> Value:
        """Logits (..., v) by the output matrix, or by the token embedding that is tied to it."""
        return self._product(x, (name,), self._table_blocks(name), biases=(), to=to)

    def embed(self, ids: Value, name: str) -> Value:
        """(..., e) rows of the token embedding for (...) ids."""
        blocks = self._table_blocks(name)
        if blocks is None:
            return self.graph.op("Gather", self._floats((name,)), ids, name="embedding", axis=0)
        codes, *rest = self._blocks((name,), blocks)
        if name == self._head:  # the same bytes with two axes: the head reads them with three
            stored = next(rows.parts[0] for rows in self.rows if rows.parts[0].name == codes)
            flat = Stored(
                f"{codes}_by_row", "uint8", (stored.shape[0], prod(stored.shape[1:])), stored.offset
            )
            codes = self.graph.external(flat, location=self.location)
        return self.graph.op(
            "GatherBlockQuantized", codes, ids, *rest, name="embedding", domain=MICROSOFT,
            bits=blocks.bits, block_size=blocks.size, gather_axis=0, quantize_axis=1,
        )  # fmt: skip

    def _table_blocks(self, name: str) -> Blocks | None:
        output = self._role(name) is Role.OUTPUT
        blocks = self.kind.head if name == self._head else self.kind.embedding
        if blocks is None or output:
            return blocks
        return blocks.dividing(self.model.tensor(name).shape[1], what=name)

    def _product(
        self,
        x: Value,
        names: tuple[str, ...],
        blocks: Blocks | None,
        *,
        biases: tuple[str, ...],
        to: str,
    ) -> Value:
        bias = (self._floats(biases),) if biases else ()
        if blocks is not None:
            return self._product_of_blocks(x, names, blocks, bias=bias, to=to)
        matrix = self._floats(names)
        if self.flat:
            return self.graph.op("Gemm", x, matrix, *bias, name=to, transB=1)
        y = self.graph.op(
            "FusedMatMul",
            x,
            matrix,
            name=f"{to}_product" if bias else to,
            domain=MICROSOFT,
            transB=1,
        )
        return self.graph.op("Add", y, *bias, name=to) if bias else y

    def _product_of_blocks(
        self, x: Value, names: tuple[str, ...], blocks: Blocks, *, bias: tuple[Value, ...], to: str
    ) -> Value:
        codes, scales, *zeros = self._blocks(names, blocks)
        inputs = (
            [x, codes, scales, *zeros]
            if not bias
            else [x, codes, scales, *(zeros or [""]), "", *bias]
        )
        n, k = (
            sum(self.model.tensor(name).shape[0] for name in names),
            self.model.tensor(names[0]).shape[1],
        )
        return self.graph.op(
            "MatMulNBits", *inputs, name=to, domain=MICROSOFT,
            K=k, N=n, bits=blocks.bits, block_size=blocks.size, accuracy_level=self.kind.accuracy_level,
        )  # fmt: skip

    def _floats(self, names: tuple[str, ...], *, shift: float = 0.0) -> Value:
        """The tensors one after the other, as one initializer in the type of the activations."""
        make = {
            name: partial(
                _float_rows, name, self.model.tensor(name), FLOAT_NAMES[self.kind.dtype], shift
            )
            for name in names
        }
        return self._joined(
            make, {"": (self.kind.dtype, tuple(self.model.tensor(names[0]).shape[1:]))}
        )[0]

    def _blocks(self, names: tuple[str, ...], blocks: Blocks) -> tuple[Value, ...]:
        """Codes, scales and, unless symmetric, zero points of matrices one after the other; (n, bytes) codes to look up only."""
        columns = self.model.tensor(names[0]).shape[1]
        count = blocks.count(columns)
        looked_up = self._role(names[0]) is Role.TOKEN_EMBEDDING and names[0] != self._head
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {
            "_codes": (
                "uint8",
                (count * blocks.block_bytes,) if looked_up else (count, blocks.block_bytes),
            ),
            "_scales": ("float32", (count,)),
        }
        if not blocks.symmetric:
            shapes["_zero_points"] = ("uint8", (blocks.zero_point_bytes(columns),))
        return self._joined(
            {name: partial(_packed_rows, name, self.model.tensor(name), blocks) for name in names},
            shapes,
        )

    @property
    def _head(self) -> str:
        """The output head, or the token embedding that is tied to it."""
        stack = self.model.stack
        end = stack.embedding.weight if stack.tied else stack.head.output.weight
        return end.template

    def _role(self, name: str) -> Role:
        return self.model.weights[name].weight.role

    def _joined(
        self,
        make: Mapping[str, Callable[[int, int], Made]],
        row: Mapping[str, tuple[str, tuple[int, ...]]],
    ) -> tuple[Value, ...]:
        """One initializer for each part of `row` (its name's end -> type, shape of one row), filled by every tensor in turn."""
        names = tuple(make)
        if names in self._values:
            return self._values[names]
        counts = [self.model.tensor(name).shape[0] for name in names]
        stem = JOINT.join(names)
        whole = [
            self._place(stem + end, dtype, (sum(counts), *shape))
            for end, (dtype, shape) in row.items()
        ]
        start = 0
        for name, n in zip(names, counts, strict=True):
            parts = tuple(
                replace(
                    part,
                    shape=(n, *part.shape[1:]),
                    offset=part.offset + start * (part.nbytes // sum(counts)),
                )
                for part in whole
            )
            self.rows.append(Rows(parts, n, prod(self.model.tensor(name).shape[1:]), make[name]))
            start += n
        self._values[names] = tuple(
            self.graph.external(part, location=self.location) for part in whole
        )
        return self._values[names]

    def _place(self, name: str, dtype: str, shape: tuple[int, ...]) -> Stored:
        nbytes = Stored(name, dtype, shape, 0).nbytes
        offset = self.size + -self.size % (PAGE if nbytes >= 16 * PAGE else LINE)
        self.size = offset + nbytes
        return Stored(name, dtype, shape, offset)


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
    reason = error.reason.replace("F16; take BF16 or F32", "fp16; take --type fp32")
    told = BadValueError(error.row, error.column, error.value, reason)
    return place_error(told, name, start=start)
