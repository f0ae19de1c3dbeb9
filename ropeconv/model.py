"""What a converter is given: one frozen `Model`, and what it is read from: one `Checkpoint`.

Tensors are lazy: a name has a shape and a storage type; numbers are read by rows when asked for, so
that memory is bound by the slab and not by the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ropeconv.arch.blocks.keys import Sizes
from ropeconv.arch.blocks.mla import LatentAttention
from ropeconv.arch.family import Architecture
from ropeconv.arch.layers import FULL
from ropeconv.arch.stack import Place, Stack
from ropeconv.importance.moments import Moments
from ropeconv.rope.magnitude import score_factor
from ropeconv.rope.solve import solve
from ropeconv.rope.spec import Frequencies, Rope

Rows = NDArray[Any]
T = TypeVar("T")


class Tensor(Protocol):
    """A tensor that is read by rows of its first axis: elements, when it has one axis, and one row
    of one element, when it has none.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Logical shape, slowest axis first."""

    @property
    def dtype(self) -> str:
        """Storage type: F32, F16, BF16, or a ggml block type such as Q4_1."""

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) numbers: float32, float16 or ml_dtypes.bfloat16 as stored; block
        types dequantised to float32.
        """

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, row bytes) as stored."""


def row_count(shape: tuple[int, ...]) -> int:
    """Rows of a tensor of this shape."""
    return shape[0] if shape else 1


@dataclass(frozen=True)
class Checkpoint:
    """Files that were recognised, headers read, nothing converted.

    format: the file format's name. files: text and tokenizer files by name, read when asked for.
    metadata: a single file's key/value pairs, else empty. identify: () -> its fingerprint, which
    reads some of every tensor. loadable: whether transformers loads the path itself. wrapper:
    model_type of what the text model lies in; left_out: what else the files hold -> how many
    tensors. renamed: how the names of its tensors differ from those in the files, in words. unread:
    files in the folder with other weights than these. dequantised: the format of codes that the
    weights were in, as reports say it. base: the checkpoint under an adapter, whose
    folder is `path`. vouched: config keys that a user said have no bearing on logits.
    """

    path: Path
    format: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    files: Mapping[str, Callable[[], bytes]]
    identify: Callable[[], str]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    loadable: bool = True
    wrapper: str | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    renamed: str = ""
    unread: tuple[str, ...] = ()
    dequantised: str = ""
    base: Path | None = None
    vouched: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Identifies content, not place."""
        return self.identify()


@dataclass(frozen=True)
class Model:
    """A checkpoint understood: family, sizes, blocks, rotary embedding per layer kind, tensors.

    sizes: what the config says, by name; stack: the blocks made of it. ropes: layer kind -> Rope,
    or None where the layer has no RoPE. weights: Hugging Face name -> where it belongs; every
    tensor of the checkpoint is here or was dropped by name. moments: what its matrices are
    multiplied by, where the writer's options ask for a text to be run first.
    """

    arch: Architecture
    sizes: Sizes
    stack: Stack
    ropes: Mapping[str, Rope | None]
    weights: Mapping[str, Place]
    checkpoint: Checkpoint
    moments: Moments | None = None

    @cached_property
    def frequencies(self) -> Mapping[str, Frequencies | None]:
        """Solved frequencies by layer kind."""
        return {kind: None if rope is None else solve(rope) for kind, rope in self.ropes.items()}

    @property
    def main_rope(self) -> Rope:
        """The rope that bounds the context: see `main_of`."""
        return main_of(self.ropes)

    @property
    def main_frequencies(self) -> Frequencies:
        """The frequencies of `main_rope`."""
        return main_of(self.frequencies)

    @property
    def score_factor(self) -> float:
        """What its attention multiplies scores by because of how its rotary embedding is scaled."""
        latent = isinstance(self.stack.attention, LatentAttention)
        return score_factor(self.main_rope) if latent else 1.0

    def tensor(self, name: str) -> Tensor:
        """The lazy tensor behind a weight."""
        return self.checkpoint.tensors[name]


def main_of(by_kind: Mapping[str, T | None]) -> T:
    """What the full-attention layers have, else the first kind of layer that has any."""
    return by_kind.get(FULL) or next(value for value in by_kind.values() if value is not None)
