"""What a converter is given: one frozen `Model`, and what it is read from: one `Checkpoint`.

Tensors are lazy: a name has a shape and a storage type; numbers are read by rows when asked for, so that memory is bound
by the slab and not by the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ropeconv.arch._base import Architecture, Dims, Weight
from ropeconv.rope.solve import solve
from ropeconv.rope.spec import Frequencies, Rope

Rows = NDArray[Any]


class Tensor(Protocol):
    """A tensor that is read by rows of its first axis (elements, when it has one axis)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Logical shape, slowest axis first."""

    @property
    def dtype(self) -> str:
        """Storage type: F32, F16, BF16, or a ggml block type such as Q4_1."""

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) numbers: float32, float16 or ml_dtypes.bfloat16 as stored; block types dequantised to float32."""

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, row bytes) as stored."""


@dataclass(frozen=True)
class Checkpoint:
    """Files that were recognised, headers read, nothing converted.

    format: "safetensors", "pytorch" or "gguf". files: text and tokenizer files by name, read when asked for.
    metadata: a GGUF source's key/value pairs, else empty. fingerprint: identifies content, not place.
    """

    path: Path
    format: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    files: Mapping[str, Callable[[], bytes]]
    fingerprint: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A checkpoint understood: family, sizes, rotary embedding per layer type, and a lazy tensor for every weight.

    layer_types: one entry a layer. ropes: layer type -> Rope, or None where the layer has no RoPE.
    weights: Hugging Face name -> (the family's row, layer index or None). Every checkpoint tensor is here or was dropped by name.
    """

    arch: Architecture
    dims: Dims
    layer_types: tuple[str, ...]
    ropes: Mapping[str, Rope | None]
    weights: Mapping[str, tuple[Weight, int | None]]
    checkpoint: Checkpoint

    @cached_property
    def frequencies(self) -> Mapping[str, Frequencies | None]:
        """Solved frequencies by layer type."""
        return {layer: None if rope is None else solve(rope) for layer, rope in self.ropes.items()}

    @property
    def main_rope(self) -> Rope:
        """The rope that bounds the context: the full-attention layers', else the only one there is."""
        ropes = self.ropes
        return ropes.get("full_attention") or next(rope for rope in ropes.values() if rope is not None)

    def tensor(self, name: str) -> Tensor:
        """The lazy tensor behind a weight."""
        return self.checkpoint.tensors[name]
