"""Weights that a file holds as keys: one list of numbers, one of them a layer, for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from converters.to_gguf.archs._arch import Arch
from converters.to_gguf.file.keys import KeyValue, floats
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.stack import Stack
from ropeconv.errors import CheckpointError
from ropeconv.kit.views import TableTensor
from ropeconv.model import Model, Tensor


def learned_keys(model: Model, arch: Arch) -> list[KeyValue]:
    """The keys by their full names."""
    values: dict[str, list[float]] = {}
    for source, key in _places(model.stack, arch):
        (number,) = np.asarray(model.tensor(source).rows(0, 1), np.float32).reshape(-1)
        values.setdefault(key, []).append(float(number))
    return [floats(key, numbers) for key, numbers in values.items()]


def learned_tensors(metadata: Mapping[str, Any], stack: Stack, arch: Arch) -> dict[str, Tensor]:
    """A checkpoint's name -> the tensor that a file's keys hold."""
    found: dict[str, Tensor] = {}
    places = stack.places()
    for source, key in _places(stack, arch):
        numbers, layer = metadata.get(key), places[source].layer
        assert layer is not None
        if not isinstance(numbers, list) or len(numbers) != len(stack.layers):
            raise CheckpointError(
                f"the GGUF file has no {key} of {len(stack.layers)} numbers, one a layer; convert "
                f"again"
            )
        shape = places[source].weight.shape
        found[source] = TableTensor(np.full(shape, numbers[layer], np.float32))
    return found


def _places(stack: Stack, arch: Arch) -> Iterator[tuple[str, str]]:
    """(name in a checkpoint, key), layer by layer."""
    for source, place in stack.places().items():
        if arch.learned and place.weight.role is Role.ACTIVATION:
            yield source, arch.learned[place.weight.part]
