"""One metadata entry of a GGUF file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gguf import GGUFValueType


@dataclass(frozen=True)
class KeyValue:
    """`key = value` in GGUF's own type; `sub_type` is the element type of an array and None otherwise."""

    key: str
    value: Any
    type: GGUFValueType
    sub_type: GGUFValueType | None = None
