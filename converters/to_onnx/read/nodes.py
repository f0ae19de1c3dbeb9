"""Who reads what in a graph, through the bodies of its nodes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any


class Nodes:
    """The nodes of a GraphProto and of every body in it; values have one name throughout."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph

    def __iter__(self) -> Iterator[Any]:
        return _every(self._graph)

    @cached_property
    def read(self) -> frozenset[str]:
        """Names of the values that some node reads."""
        return frozenset(name for node in self for name in node.input)

    def readers(self, value: str) -> list[Any]:
        """The nodes that read a value; of what a Scan scans, those in its body."""
        return self._readers.get(self._entries.get(value, value), [])

    def origin(self, value: str) -> str:
        """The value that a Scan's body is given an entry of, else the value itself."""
        return self._origins.get(value, value)

    @cached_property
    def _readers(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for node in self:
            for value in node.input:
                found.setdefault(value, []).append(node)
        return found

    @cached_property
    def _entries(self) -> dict[str, str]:
        """What a Scan scans -> one entry of it, as the Scan's body calls it."""
        found: dict[str, str] = {}
        for node in self:
            if node.op_type == "Scan":
                names = [value.name for body in _bodies(node) for value in body.input]
                found.update(zip(node.input, names, strict=False))
        return found

    @cached_property
    def _origins(self) -> dict[str, str]:
        return {entry: value for value, entry in self._entries.items()}


def whole_numbers(node: Any) -> dict[str, int]:
    """The attributes of a node that are whole numbers; 0 for every other."""
    return {attribute.name: int(attribute.i) for attribute in node.attribute}


def _bodies(node: Any) -> list[Any]:
    return [attribute.g for attribute in node.attribute if attribute.HasField("g")]


def _every(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for body in _bodies(node):
            yield from _every(body)
