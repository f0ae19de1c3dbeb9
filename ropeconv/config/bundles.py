"""Tensors that a checkpoint has in one: each part under a name of its own, and back as stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ropeconv.arch.blocks.weight import Bundle
from ropeconv.arch.stack import Stack
from ropeconv.errors import CheckpointError
from ropeconv.kit import transforms
from ropeconv.kit.float_types import FLOATS
from ropeconv.kit.transforms import Keep, Transform
from ropeconv.kit.views import Entry, as_bytes
from ropeconv.model import Checkpoint, Rows, Tensor


def with_parts(checkpoint: Checkpoint, stack: Stack) -> Checkpoint:
    """The checkpoint with the parts of every bundle in its place, read when their rows are.

    CheckpointError for a bundle of another shape than the config says.
    """
    tensors = dict(checkpoint.tensors)
    for name, bundle, layer, experts in stack.bundles():
        whole = tensors.pop(name, None)
        if whole is None:
            continue
        wanted = bundle.shape(experts)
        if tuple(whole.shape) != wanted:
            raise CheckpointError(
                f"tensor {name} has shape {tuple(whole.shape)}, config.json says {wanted}"
            )
        for names, entry in zip(bundle.names(layer, experts), _entries(bundle, whole), strict=True):
            tensors.update(zip(names, _apart(bundle).apply([entry]), strict=True))
    return replace(checkpoint, tensors=tensors)


def as_stored(tensors: Mapping[str, Tensor], stack: Stack) -> dict[str, Tensor]:
    """The tensors as a checkpoint names them: bundles whose parts are all there are whole again."""
    found = dict(tensors)
    for name, bundle, layer, experts in stack.bundles():
        parts = list(bundle.names(layer, experts))
        if not all(part in found for names in parts for part in names):
            continue
        together = _apart(bundle).inverse
        whole = [together.apply([found.pop(part) for part in names])[0] for names in parts]
        found[name] = _stacked(bundle, whole)
    return found


def stored_names(stack: Stack) -> set[str]:
    """What a checkpoint calls everything that a forward pass reads."""
    names = set(stack.places())
    for name, bundle, layer, experts in stack.bundles():
        names.difference_update(part for parts in bundle.names(layer, experts) for part in parts)
        names.add(name)
    return names


def stored_name(part: str, stack: Stack) -> str:
    """What a checkpoint calls the tensor that holds `part`: the bundle's name, or its own."""
    for name, bundle, layer, experts in stack.bundles():
        if part.startswith(name) and any(part in row for row in bundle.names(layer, experts)):
            return name
    return part


def _entries(bundle: Bundle, whole: Tensor) -> list[Tensor]:
    """One tensor an expert."""
    if not bundle.parts[0].per_expert:
        return [whole]
    return transforms.Unstack(whole.shape[0]).apply([whole])


def _stacked(bundle: Bundle, entries: list[Tensor]) -> Tensor:
    if not bundle.parts[0].per_expert:
        return entries[0]
    return transforms.Stack(len(entries)).apply(entries)[0]


def _apart(bundle: Bundle) -> Transform:
    """One expert's tensor -> its parts."""
    rows = bundle.parts[0].shape[0]
    count = len(bundle.parts)
    return transforms.chain(
        Turn() if bundle.turned else Keep(),
        transforms.ByPart(rows, (1,) * count) if bundle.alternating else Keep(),
        transforms.Cut((rows,) * count) if count > 1 else Keep(),
    )


@runtime_checkable
class StoredUpright(Protocol):
    """A stack of matrices each of which is stored the other way round."""

    def upright(self, number: int) -> Tensor:
        """One of them as it is stored."""


@dataclass(frozen=True)
class Turned:
    """A matrix with rows and columns exchanged; see `ropeconv.model.Tensor`."""

    base: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """(columns, rows) of the base."""
        return self.base.shape[::-1]

    @property
    def dtype(self) -> str:
        """The base's; F32 for blocks, which lie along its rows."""
        return self.base.dtype if self.base.dtype in FLOATS else "F32"

    @cached_property
    def upright(self) -> Tensor | None:
        """The tensor with these very rows, where the base is one of those turned."""
        base = self.base
        if isinstance(base, Entry) and isinstance(base.base, StoredUpright):
            return base.base.upright(base.number)
        return None

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) numbers."""
        if self.upright is not None:
            return self.upright.rows(start, stop)
        whole = self.base.rows(0, self.base.shape[0])
        return np.ascontiguousarray(whole[:, start:stop].T)

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Their bytes."""
        return as_bytes(self.rows(start, stop))


@dataclass(frozen=True)
class Turn:
    """Rows and columns exchanged; see `ropeconv.kit.transforms`."""

    @property
    def inverse(self) -> Turn:
        """Itself."""
        return self

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each turned."""
        return [tensor.base if isinstance(tensor, Turned) else Turned(tensor) for tensor in tensors]
