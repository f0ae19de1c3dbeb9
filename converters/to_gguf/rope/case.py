"""A file's rotary keys and tables under examination, and changes of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from converters.to_gguf.rope.loader import DEFAULT_TYPE
from ropeconv.finding import Values

SEEN = "llama.cpp (llama-cpp-python 0.3.36)"  # where a trap of one architecture was seen


@dataclass(frozen=True)
class RotaryCase:
    """A file: metadata, tensor names.

    problems: why llama.cpp would not load it. original_context: L as the user states it.
    """

    metadata: Values
    tensors: Collection[str]
    problems: Collection[str]
    original_context: int | None = None

    @property
    def arch(self) -> str:
        """general.architecture."""
        return str(self.metadata.get("general.architecture"))

    def key(self, name: str) -> str:
        """The rotary scaling key's full name."""
        return f"{self.arch}.rope.scaling.{name}"

    def get(self, name: str, default: Any = None) -> Any:
        """A rotary scaling key."""
        return self.metadata.get(self.key(name), default)

    @property
    def kind(self) -> str:
        """The scaling type; llama.cpp's default where there is none."""
        return str(self.get("type", DEFAULT_TYPE))

    @property
    def base_key(self) -> str:
        """The full name of the key of the base."""
        return f"{self.arch}.rope.freq_base"

    @property
    def context_key(self) -> str:
        """The full name of the key of the context length."""
        return f"{self.arch}.context_length"

    @property
    def factor(self) -> float:
        """s, 1 where nothing is scaled."""
        value = self.get("factor", self.metadata.get(f"{self.arch}.rope.scale_linear", 1.0))
        return float(value) if isinstance(value, int | float) and value else 1.0

    @property
    def context(self) -> int | None:
        """context_length."""
        value = self.metadata.get(self.context_key)
        return value if isinstance(value, int) else None

    @property
    def trained(self) -> int | None:
        """L: the file's, or the user's."""
        value = self.get("original_context_length", self.original_context)
        return value if isinstance(value, int) else None


def change(changes: Mapping[str, Any]) -> Callable[[Values], dict[str, Any]]:
    """A mend: metadata with other values; None removes a key."""

    def apply(metadata: Values) -> dict[str, Any]:
        return {key: value for key, value in {**metadata, **changes}.items() if value is not None}

    return apply
