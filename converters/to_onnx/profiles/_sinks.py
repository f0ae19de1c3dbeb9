"""Attention sinks by operators of ai.onnx: a column of scores behind those of all tokens.

Attention has no input for them. So k and v of a call end in a token of zeros, whose score is 0, and
the mask, which is added to scores, is the head's sink there. The cache is cut off before it.
Shape letters: b batch, s new tokens, p past tokens, t = p + s, h heads, k key/value heads,
d head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import inf

from converters.to_onnx.graph import Graph, Value
from converters.to_onnx.profiles._shared import Heads, Inputs


@dataclass
class SinkColumns:
    """What the layers of one graph share."""

    frame: Inputs
    _costs: dict[Value, Value] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        """The graph under construction."""
        return self.frame.graph

    def inputs(self, heads: Heads, mask: Value) -> tuple[Value, ...]:
        """(q, k, v, mask) with the column. mask: (b, 1, s, t) bool."""
        name = f"layer_{heads.layer}"
        k, v = (
            self._padded(value, 1, 3, name=f"{name}_{letter}_and_sink")
            for value, letter in ((heads.k, "k"), (heads.v, "v"))
        )
        assert heads.sinks is not None
        return heads.q, k, v, self._scores(heads.sinks, mask, name=f"{name}_mask_and_sink")

    def cut(self, extended: Value, present: Value) -> None:
        """The cache (b, k, t, d) of what Attention gives, (b, k, t + 1, d)."""
        graph = self.graph
        ends = (graph.ints(0), graph.ints(-1), graph.ints(2))
        graph.op("Slice", extended, *ends, name=present)

    def _scores(self, sinks: Value, mask: Value, *, name: str) -> Value:
        """(b, h, s, t + 1) what is added: 0 or minus infinity, and the sinks (h,) at the end."""
        graph = self.graph
        if mask not in self._costs:
            self._costs[mask] = self._cost(mask)
        own = graph.op("Unsqueeze", sinks, graph.ints(1, 2), name=name)
        return graph.op("Where", self._is_sink, own, self._costs[mask], name=name)

    def _cost(self, mask: Value) -> Value:
        """(b, 1, s, t + 1): 0 for what is seen, else minus infinity."""
        graph, dtype = self.graph, self.frame.store.kind.dtype
        seen = graph.constant(0, dtype, name="sink_seen")
        hidden = graph.constant(-inf, dtype, name="sink_hidden")
        cost = graph.op("Where", mask, seen, hidden, name="sink_mask")
        return self._padded(cost, 3, 4, name="sink_mask")

    @cached_property
    def _is_sink(self) -> Value:
        """(t + 1,) bool."""
        graph = self.graph
        columns = graph.op("Shape", self.frame.mask, name="sink_total", start=1)
        total = graph.op("Squeeze", columns, graph.ints(0), name="sink_total")
        count = graph.op("Add", total, graph.scalar(1), name="sink_count")
        places = (graph.scalar(0), count, graph.scalar(1))
        return graph.op("Equal", graph.op("Range", *places, name="place"), total, name="is_sink")

    def _padded(self, value: Value, axis: int, rank: int, *, name: str) -> Value:
        """With zeros behind the last entry of an axis."""
        graph = self.graph
        pads = [0] * (2 * rank)
        pads[rank + axis] = 1
        return graph.op("Pad", value, graph.ints(*pads), name=name)
