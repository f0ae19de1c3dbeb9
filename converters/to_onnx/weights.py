"""Weights in the graph: which initializers a matrix becomes, where its bytes lie, and the node that
multiplies by it.

The seam between the decoder (blocks/), which knows blocks and no types, and quant/, which knows
types and no blocks. `Store` hands out value names while the graph is built and remembers, for every
matrix, who makes its bytes (data.py).

A quantised matrix is three initializers. Matrices that multiply the same x are one initializer,
their rows one after the other and their names joined by JOINT, and the node that splits the product
says where each begins. A matrix of every expert is one too, with the experts along a first axis and
EVERY in the place of their numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

from numpy.typing import NDArray

from converters.to_onnx.data import (
    Fill,
    Make,
    Part,
    Rows,
    alternating_rows,
    cut_of,
    float_rows,
    kept_rows,
    packed_rows,
    parts_of,
    table_rows,
)
from converters.to_onnx.graph import MICROSOFT, Graph, Stored, Value
from converters.to_onnx.layout import Layout
from converters.to_onnx.lookup import add_lookup
from converters.to_onnx.quant._choice import Choice
from converters.to_onnx.quant._types import Blocks
from ropeconv.arch.blocks.weight import Role
from ropeconv.kit.float_types import FLOAT_NAMES

JOINT, EVERY = "+", "*"


class Store:
    """Weights of the model of `choice`, where `layout` has room for them.

    flat: activations are (b*s, e) and products Gemm, else (b, s, e) and onnxruntime's FusedMatMul.
    """

    def __init__(self, graph: Graph, choice: Choice, *, layout: Layout, flat: bool) -> None:
        self.graph = graph
        self.choice = choice
        self.model = choice.model
        self.kind = choice.kind
        self.layout = layout
        self.flat = flat
        self.rows: list[Rows] = []
        self.products: dict[tuple[str, ...], Blocks] = {}
        self._values: dict[tuple[str, ...], tuple[Value, ...]] = {}

    @property
    def size(self) -> int:
        """Bytes of all data files."""
        return sum(self.layout.sizes)

    @property
    def names(self) -> list[str]:
        """Every tensor and table that was asked for."""
        return [name for names in self._values for name in names]

    def vector(self, name: str, *, dtype: str | None = None) -> Value:
        """A norm or bias plus the weight's offset, in `dtype` or the type of the activations."""
        return self._floats((name,), shift=self.model.weights[name].weight.offset, dtype=dtype)

    def table(self, name: str, values: NDArray[Any]) -> Value:
        """A table that was made here, in its own type."""
        part = self.layout.place(name, str(values.dtype), values.shape)
        make = partial(table_rows, values)
        self.rows.append(Rows((part,), values.shape[0], prod(values.shape[1:]), make))
        self._values[name,] = (self._external(part),)
        return self._values[name,][0]

    def linear(
        self,
        x: Value,
        names: Sequence[str],
        *,
        biases: Sequence[str],
        to: str,
        floats: bool = False,
    ) -> Value:
        """x (..., in) by the matrices `names` (out, in), plus the vectors `biases`.

        (..., all outs one after the other). floats: the matrices stay floats in every type.
        """
        blocks = None if floats else self.choice.linear(names)
        return self._product(x, tuple(names), blocks, biases=tuple(biases), to=to)

    def head(self, x: Value, name: str, *, biases: Sequence[str], to: str) -> Value:
        """Logits (..., v) by the output matrix, or by the token embedding that is tied to it."""
        blocks = self._table_blocks(name)
        return self._product(x, (name,), blocks, biases=tuple(biases), to=to)

    def embed(self, ids: Value, name: str) -> Value:
        """(..., e) rows of the token embedding for (...) ids."""
        blocks = self._table_blocks(name)
        if blocks is None:
            return self.graph.op("Gather", self._floats((name,)), ids, name="embedding", axis=0)
        domain = add_lookup(self.graph, blocks) if self.layout.apart else MICROSOFT
        codes, *rest = self._blocks((name,), blocks, flat=name != self.head_name)
        if name == self.head_name:  # the same bytes with two axes: the head reads them with three
            codes = self._by_row(codes)
        return self.graph.op(
            "GatherBlockQuantized", codes, ids, *rest, name="embedding", domain=domain,
            bits=blocks.bits, block_size=blocks.size, gather_axis=0, quantize_axis=1,
        )  # fmt: skip

    def stacked(
        self,
        experts: Sequence[tuple[str, ...]],
        blocks: Blocks | None,
        *,
        stem: str,
        alternating: bool,
    ) -> tuple[Value, ...]:
        """Matrices of all experts: floats (x, n, c), or codes (x, n, bytes), scales, zero points.

        experts: the tensors of each one; n: their rows together, one tensor after the other, or a
        row of each in turn where `alternating`. stem: the name of the initializers.
        """
        names = tuple(name for expert in experts for name in expert)
        columns = self._columns(names)
        parts = [Part("", self.kind.dtype, (columns,))]
        if blocks is not None:
            parts = self._parts_of(columns, blocks, flat=True)
        makes = {name: self._make(name, blocks) for name in names}
        return self._stack(experts, stem, parts, makes, columns=columns, alternating=alternating)

    def stacked_vectors(
        self, experts: Sequence[tuple[str, ...]], *, stem: str, alternating: bool
    ) -> Value:
        """(x, n) vectors of all experts in the type of the activations; see `stacked`."""
        makes = {name: self._make(name, None) for expert in experts for name in expert}
        parts = [Part("", self.kind.dtype, ())]
        return self._stack(experts, stem, parts, makes, columns=1, alternating=alternating)[0]

    def _stack(
        self,
        experts: Sequence[tuple[str, ...]],
        stem: str,
        parts: Sequence[Part],
        makes: Mapping[str, Make],
        *,
        columns: int,
        alternating: bool,
    ) -> tuple[Value, ...]:
        each = self._rows_of(experts[0])
        fills: list[Fill] = []
        for expert in experts:
            if alternating:
                make = partial(alternating_rows, [makes[name] for name in expert])
                fills.append(Fill(each // len(expert), len(expert) * columns, make))
            else:
                fills += [self._fill(name, makes[name]) for name in expert]
        return self._allot(tuple(makes), stem, (len(experts), each), parts, fills)

    def _by_row(self, codes: Value) -> Value:
        """The same bytes as another initializer: (n, bytes) of (n, blocks, bytes)."""
        stored = next(rows.parts[0] for rows in self.rows if rows.parts[0].name == codes)
        return self._external(replace(stored, name=f"{codes}_by_row"))

    def _table_blocks(self, name: str) -> Blocks | None:
        output = self.model.weights[name].weight.role is Role.OUTPUT
        blocks = self.choice.table(name, head=name == self.head_name)
        if blocks is None or output:
            return blocks
        return blocks.dividing(self._columns((name,)), what=name)

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
        product = f"{to}_product" if bias else to
        y = self.graph.op("FusedMatMul", x, matrix, name=product, domain=MICROSOFT, transB=1)
        return self.graph.op("Add", y, *bias, name=to) if bias else y

    def _product_of_blocks(
        self, x: Value, names: tuple[str, ...], blocks: Blocks, *, bias: tuple[Value, ...], to: str
    ) -> Value:
        self.products[names] = blocks
        codes, scales, *zeros = self._blocks(names, blocks)
        inputs = [x, codes, scales, *zeros]
        if bias:
            inputs = [x, codes, scales, *(zeros or [""]), "", *bias]
        return self.graph.op(
            "MatMulNBits", *inputs, name=to, domain=MICROSOFT,
            K=self._columns(names), N=self._rows_of(names), bits=blocks.bits,
            block_size=blocks.size, accuracy_level=self.kind.accuracy_level,
        )  # fmt: skip

    def _floats(
        self, names: tuple[str, ...], *, shift: float = 0.0, dtype: str | None = None
    ) -> Value:
        """The tensors one after the other, in the type of the activations or in `dtype`."""
        dtype = dtype or self.kind.dtype
        shape = self.model.tensor(names[0]).shape
        rows = (self._rows_of(names),) if shape else ()
        parts = [Part("", dtype, tuple(shape[1:]))]
        makes = [self._make(name, None, shift=shift, dtype=dtype) for name in names]
        fills = [self._fill(name, make) for name, make in zip(names, makes, strict=True)]
        return self._allot(names, JOINT.join(names), rows, parts, fills)[0]

    def _blocks(
        self, names: tuple[str, ...], blocks: Blocks, *, flat: bool = False
    ) -> tuple[Value, ...]:
        """Codes, scales and, unless symmetric, zero points of matrices one after the other.

        flat: codes (n, bytes), as they are looked up, else (n, blocks, bytes).
        """
        parts = self._parts_of(self._columns(names), blocks, flat=flat)
        fills = [self._fill(name, self._make(name, blocks)) for name in names]
        return self._allot(names, JOINT.join(names), (self._rows_of(names),), parts, fills)

    def _make(
        self, name: str, blocks: Blocks | None, *, shift: float = 0.0, dtype: str | None = None
    ) -> Make:
        tensor = self.model.tensor(name)
        if blocks is None:
            self.choice.floats(name)
            kind = FLOAT_NAMES[dtype or self.kind.dtype]
            return partial(float_rows, name, tensor, kind, shift)
        if self.kind.kept:
            return partial(kept_rows, name, tensor, blocks)
        return partial(packed_rows, self.choice.packing, name, tensor, blocks, self.kind.dtype)

    def _parts_of(self, columns: int, blocks: Blocks, *, flat: bool) -> list[Part]:
        return parts_of(columns, blocks, flat=flat, scales=self.kind.dtype)

    def _fill(self, name: str, make: Make) -> Fill:
        shape = self.model.tensor(name).shape
        return Fill(shape[0] if shape else 1, prod(shape[1:]), make)

    def _rows_of(self, names: Iterable[str]) -> int:
        return sum(self.model.tensor(name).shape[0] for name in names)

    def _columns(self, names: Sequence[str]) -> int:
        return self.model.tensor(names[0]).shape[1]

    @property
    def head_name(self) -> str:
        """The output head, or the token embedding that is tied to it."""
        stack = self.model.stack
        end = stack.embedding.weight if stack.tied else stack.head.output.weight
        return end.template

    def _allot(
        self,
        names: tuple[str, ...],
        stem: str,
        shape: tuple[int, ...],
        parts: Sequence[Part],
        fills: Sequence[Fill],
    ) -> tuple[Value, ...]:
        """One initializer of `shape` rows for each part; `fills`, in turn, make what is in it."""
        if names in self._values:
            return self._values[names]
        whole = [
            self.layout.place(stem + part.end, part.dtype, (*shape, *part.row)) for part in parts
        ]
        total = sum(fill.rows for fill in fills)
        start = 0
        for fill in fills:
            cuts = tuple(cut_of(part, start, fill.rows, total) for part in whole)
            self.rows.append(Rows(cuts, fill.rows, fill.width, fill.make))
            start += fill.rows
        values = tuple(self._external(part) for part in whole)
        self._values[names] = values
        return values

    def _external(self, stored: Stored) -> Value:
        return self.graph.external(stored, location=self.layout.location(stored))
