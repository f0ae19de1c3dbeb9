"""One metadata entry of a GGUF file, and the numbers of its types (ggml docs/gguf.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

UINT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 2, 4, 5, 6, 7, 8, 9


@dataclass(frozen=True)
class KeyValue:
    """`key = value` in GGUF's own type; `sub_type` is an array's element type, None otherwise."""

    key: str
    value: Any
    type: int
    sub_type: int | None = None

    def under(self, arch: str) -> KeyValue:
        """The entry with an architecture's name before its own."""
        return replace(self, key=f"{arch}.{self.key}")


def uint32(key: str, value: int) -> KeyValue:
    """A whole number."""
    return KeyValue(key, value, UINT32)


def float32(key: str, value: float) -> KeyValue:
    """A number."""
    return KeyValue(key, value, FLOAT32)


def boolean(key: str, value: bool) -> KeyValue:  # noqa: FBT001 - the value itself
    """A switch."""
    return KeyValue(key, value, BOOL)


def whole_numbers(key: str, values: Sequence[int]) -> KeyValue:
    """One whole number a layer."""
    return KeyValue(key, list(values), ARRAY, INT32)


def booleans(key: str, values: Sequence[bool]) -> KeyValue:
    """One switch a layer."""
    return KeyValue(key, list(values), ARRAY, BOOL)


def floats(key: str, values: Sequence[float]) -> KeyValue:
    """One number a layer."""
    return KeyValue(key, list(values), ARRAY, FLOAT32)


def string(key: str, value: str) -> KeyValue:
    """A text."""
    return KeyValue(key, value, STRING)


def strings(key: str, values: Sequence[str]) -> KeyValue:
    """An array of STRING."""
    return KeyValue(key, list(values), ARRAY, STRING)
