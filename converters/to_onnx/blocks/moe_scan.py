"""Experts by operators of ai.onnx alone: a Scan over all of them, which computes the chosen ones.

A Scan hands each expert's matrices over without copying them, and its body is in the graph once.
Shape letters: t tokens (b*s), x experts, k chosen, c tokens of one expert, e hidden, m its width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from converters.to_onnx.blocks import find
from converters.to_onnx.blocks.experts import expert_biases, expert_blocks, expert_matrices
from converters.to_onnx.blocks.frame import Decoder, name_of
from converters.to_onnx.blocks.mlp import add_clamped_unit, find_activation
from converters.to_onnx.blocks.routing import ROUTINGS
from converters.to_onnx.graph import Graph, Port, Value, make_body
from converters.to_onnx.quant._types import Blocks
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.weight import Weight

TOKENS = "tokens"
SUM = "float32"  # type of weights and sums: onnxruntime adds no float16 in ScatterND


def add_scan(decoder: Decoder, n: int, block: MixtureOfExperts, x: Value, logits: Value) -> Value:
    """(..., e) of x (..., e) and router logits (..., x)."""
    graph, dtype = decoder.graph, decoder.store.kind.dtype
    hidden = block.gate.shape[1]
    rows = decoder.rows(x, hidden, name=f"layer_{n}_expert_rows")
    logits = decoder.rows(logits, block.num_experts, name=f"layer_{n}_router_rows")
    columns, chosen = _routed(decoder, n, block, logits)
    scan = _Scan(graph, n, block, rows, expert_blocks(decoder.store, n, block), dtype)
    first = expert_matrices(decoder.store, n, block, block.gate, block.up, blocks=scan.blocks)
    last = expert_matrices(decoder.store, n, block, block.down, blocks=scan.blocks)
    biases = [
        expert_biases(decoder.store, n, block, *weights)
        for weights in (block.biases[:2], block.biases[2:])
        if weights
    ]
    scanned = (columns, chosen, *first, *last, *biases)
    start = _zeros(graph, rows, name=f"layer_{n}_expert_start")
    y = graph.op(
        "Scan",
        start,
        *scanned,
        name=f"layer_{n}_experts",
        body=scan.body(),
        num_scan_inputs=len(scanned),
    )
    if dtype != SUM:
        y = graph.cast(y, dtype, name=f"layer_{n}_experts")
    return decoder.unrows(y, name=f"layer_{n}_experts_3d")


def _routed(
    decoder: Decoder, n: int, block: MixtureOfExperts, logits: Value
) -> tuple[Value, Value]:
    """((x, t) weight of each token, 0 where the expert is not its own; (x,) whether any is)."""
    graph, route = decoder.graph, find(ROUTINGS, block.routing)
    weights, experts = route(decoder, n, block.routing, logits)
    table = graph.op(
        "ScatterElements",
        _zeros(graph, logits, name=f"layer_{n}_router_zeros"),
        experts,
        weights,
        name=f"layer_{n}_router_table",
        axis=1,
    )
    axes = graph.ints(0)
    total = graph.op("ReduceSum", table, axes, name=f"layer_{n}_router_total", keepdims=0)
    if block.routing.expert_scales is not None:
        own = decoder.store.vector(name_of(block.routing.expert_scales, n), dtype=SUM)
        table = graph.op("Mul", table, own, name=f"layer_{n}_router_scaled")
    columns = graph.op("Transpose", table, name=f"layer_{n}_router_columns", perm=[1, 0])
    return columns, graph.cast(total, "bool", name=f"layer_{n}_router_chosen")


def _zeros(graph: Graph, like: Value, *, name: str) -> Value:
    shape = graph.op("Shape", like, name=f"{name}_shape")
    return graph.op("Expand", graph.constant(0, SUM, name="zero_sum"), shape, name=name)


@dataclass(frozen=True)
class _Scan:
    """The body of one layer's Scan. rows: (t, e) of the graph, which the body reads."""

    graph: Graph
    n: int
    block: MixtureOfExperts
    rows: Value
    blocks: Blocks | None
    dtype: str

    def body(self) -> Any:
        """Sum, column, whether chosen, matrices -> sum with the expert's part added."""
        total = self._port("sum", SUM, (TOKENS, self.block.gate.shape[1]))
        column = self._port("column", SUM, (TOKENS,))
        chosen = self._port("chosen", "bool", ())
        gate, up, down = self.block.gate, self.block.up, self.block.down
        first = self._matrix("gate_up", gate.shape[0] + up.shape[0], gate)
        last = self._matrix("down", down.shape[0], down)
        sizes = (gate.shape[0] + up.shape[0], down.shape[0]) if self.block.biases else ()
        parts = zip(("gate_up", "down"), sizes, strict=False)
        biases = [self._port(f"{part}_bias", self.dtype, (rows,)) for part, rows in parts]
        with self.graph.body() as nodes:
            after = self.graph.op(
                "If",
                chosen.name,
                name=self._name("sum_after"),
                then_branch=self._chosen(total, column, first, last, biases),
                else_branch=self._passed(total),
            )
        inputs = (total, column, chosen, *first, *last, *biases)
        outputs = [Port(after, total.dtype, total.shape)]
        return make_body(f"layer_{self.n}_expert", nodes, inputs=inputs, outputs=outputs)

    def _chosen(
        self,
        total: Port,
        column: Port,
        first: list[Port],
        last: list[Port],
        biases: list[Port],
    ) -> Any:
        """The branch that computes the expert for its tokens."""
        graph = self.graph
        with graph.body() as nodes:
            places = graph.op("NonZero", column.name, name=self._name("places"))
            places = graph.op("Squeeze", places, graph.ints(0), name=self._name("places"))
            x = graph.op("Gather", self.rows, places, name=self._name("x"), axis=0)
            y = self._mlp(x, first, last, biases)
            if self.dtype != SUM:
                y = graph.cast(y, SUM, name=self._name("y"))
            weights = graph.op("Gather", column.name, places, name=self._name("weights"), axis=0)
            weights = graph.op("Unsqueeze", weights, graph.ints(1), name=self._name("weights"))
            y = graph.op("Mul", y, weights, name=self._name("weighted"))
            at = graph.op("Unsqueeze", places, graph.ints(1), name=self._name("places"))
            inputs = (total.name, at, y)
            after = graph.op("ScatterND", *inputs, name=self._name("added"), reduction="add")
        return self._branch("chosen", nodes, after, total)

    def _passed(self, total: Port) -> Any:
        """The branch that leaves the sum as it is."""
        with self.graph.body() as nodes:
            after = self.graph.op("Identity", total.name, name=self._name("passed"))
        return self._branch("passed", nodes, after, total)

    def _branch(self, name: str, nodes: list[Any], after: Value, total: Port) -> Any:
        outputs = [Port(after, total.dtype, total.shape)]
        return make_body(f"layer_{self.n}_expert_{name}", nodes, outputs=outputs)

    def _mlp(self, x: Value, first: list[Port], last: list[Port], biases: list[Port]) -> Value:
        """down(act(gate x) * up x) of (c, e)."""
        graph, half = self.graph, self.block.gate.shape[0]
        both = self._product(x, first, biases[:1], name=self._name("gate_up"))
        names = (self._name("gate"), self._name("up"))
        gate, up = graph.ops("Split", (both, graph.ints(half, half)), names, axis=-1)
        return self._product(self._inner(gate, up), last, biases[1:], name=self._name("down"))

    def _inner(self, gate: Value, up: Value) -> Value:
        """act(gate) * up, or what is in its place."""
        graph, unit, name = self.graph, self.block.unit, self._name("gated")
        if unit is not None:
            return add_clamped_unit(graph, unit, gate, up, dtype=self.dtype, name=name)
        activate = find_activation(self.block.activation)
        return graph.op("Mul", activate(graph, gate), up, name=name)

    def _product(self, x: Value, matrix: list[Port], bias: list[Port], *, name: str) -> Value:
        values = matrix[0].name if self.blocks is None else self._dequantised(matrix, name=name)
        return self.graph.op("Gemm", x, values, *(port.name for port in bias), name=name, transB=1)

    def _dequantised(self, matrix: list[Port], *, name: str) -> Value:
        """(rows, columns) float32 of codes, scales and zero points."""
        assert self.blocks is not None
        graph = self.graph
        codes, scales, *zeros = (port.name for port in matrix)
        if not zeros:
            shape = graph.op("Shape", scales, name=f"{name}_shape")
            half = graph.constant(2 ** (self.blocks.bits - 1), "uint8", name="zero_point")
            zeros = [graph.op("Expand", half, shape, name=f"{name}_zeros")]
        return graph.op(
            "DequantizeLinear",
            codes,
            scales,
            *zeros,
            name=f"{name}_values",
            axis=1,
            block_size=self.blocks.size,
        )

    def _matrix(self, part: str, rows: int, weight: Weight) -> list[Port]:
        """What one expert's matrix arrives as."""
        columns = weight.shape[1]
        if self.blocks is None:
            return [self._port(part, self.dtype, (rows, columns))]
        count = self.blocks.count(columns)
        ports = [
            self._port(f"{part}_codes", "uint8", (rows, columns)),
            self._port(f"{part}_scales", self.dtype, (rows, count)),
        ]
        if not self.blocks.symmetric:
            ports.append(self._port(f"{part}_zero_points", "uint8", (rows, count)))
        return ports

    def _port(self, part: str, dtype: str, shape: tuple[int | str, ...]) -> Port:
        return Port(self.graph.fresh(self._name(part)), dtype, shape)

    def _name(self, part: str) -> str:
        return f"layer_{self.n}_expert_{part}"
