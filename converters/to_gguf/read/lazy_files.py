"""Tokenizer files of a GGUF source, made when they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any


class LazyFiles(dict[str, Callable[[], bytes]]):
    """Tokenizer files made from GGUF metadata when the first of them is read."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        names = [
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "generation_config.json",
        ]
        super().__init__({name: partial(self._read, name) for name in names})
        self._metadata = metadata
        self._made: dict[str, bytes] | None = None

    def _read(self, name: str) -> bytes:
        from converters.to_gguf.tokenizer.files import huggingface_tokenizer

        if self._made is None:
            self._made = huggingface_tokenizer(self._metadata)
        return self._made[name]
