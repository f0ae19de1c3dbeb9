"""The parameters of a transformers model, each made of a checkpoint's tensors when it is asked for.

Names and forms are transformers' own affair: what it renames, stacks or splits while it loads a
checkpoint (experts that are one tensor in memory and many in the file) is done here by the same
operations, parameter by parameter, so that no more is in memory than what was asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ropeconv.errors import CheckpointError
from ropeconv.kit.slabs import cut
from ropeconv.model import Rows, Tensor, row_count

SLAB = 1 << 22  # values on their way into a parameter: 16 MiB of float32


class Recipe(Protocol):
    """How parameters are made of tensors."""

    def fill(self, parameters: Mapping[str, Any]) -> None:
        """Write the numbers into `parameters`: name in the model -> torch tensor."""

    def made_of(self) -> list[list[Tensor]]:
        """The tensors: of each entry of the first axis where entries are apart, else of all."""


@dataclass(frozen=True)
class Copied:
    """One parameter that is one tensor of the checkpoint."""

    tensor: Tensor

    def fill(self, parameters: Mapping[str, Any]) -> None:
        """Slab by slab, each rounded to the parameter's type."""
        for parameter in parameters.values():
            rows = row_count(self.tensor.shape)
            fill_rows(parameter.view(rows, *parameter.shape[1:]), self.tensor, 0, rows)

    def made_of(self) -> list[list[Tensor]]:
        """The one tensor."""
        return [[self.tensor]]


@dataclass(frozen=True)
class Converted:
    """Parameters that transformers makes of several tensors, or several of one.

    converter: its WeightConverter; sources: pattern of the converter -> tensors in order of their
    names; first: name of the first parameter that comes out.
    """

    converter: Any
    model: Any
    first: str
    sources: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))

    def fill(self, parameters: Mapping[str, Any]) -> None:
        """Experts are stacked one at a time; anything else is converted whole."""
        if len(parameters) == 1 and self._stacks():
            (parameter,) = parameters.values()
            if any(len(tensors) != len(parameter) for tensors in self.sources.values()):
                raise ValueError(f"{self.first} is made of {len(parameter)} tensors of each kind")
            for expert, room in enumerate(parameter.split(1)):
                one = {pattern: [tensors[expert]] for pattern, tensors in self.sources.items()}
                (made,) = self._convert(one).values()
                _assign(room, made)
            return
        for name, made in self._convert(self.sources).items():
            _assign(parameters[name], made)

    def made_of(self) -> list[list[Tensor]]:
        """Those of each expert where they are stacked."""
        if not self._stacks():
            return [[tensor for tensors in self.sources.values() for tensor in tensors]]
        return [list(own) for own in zip(*self.sources.values(), strict=True)]

    def _stacks(self) -> bool:
        """Whether the first thing done is to put whole tensors one behind the other."""
        from transformers.core_model_loading import MergeModulelist

        first = self.converter.operations[0]
        return isinstance(first, MergeModulelist) and first.dim == 0

    def _convert(self, sources: Mapping[str, list[Tensor]]) -> dict[str, Any]:
        converter = deepcopy(self.converter)
        for pattern, tensors in sources.items():
            for tensor in tensors:
                whole = as_torch(tensor.rows(0, tensor.shape[0])).float()
                converter.add_tensor(self.first, self.first, pattern, whole)
        made = converter.convert(self.first, model=self.model, config=self.model.config)
        return {name: one[0] if isinstance(one, list) else one for name, one in made.items()}


class Weights:
    """What every parameter of `model` is made of.

    source: what errors call the checkpoint. CheckpointError for a parameter without a tensor.
    """

    def __init__(self, model: Any, tensors: Mapping[str, Tensor], *, source: str) -> None:
        self._source = source
        self._meta = model.state_dict()
        self._recipes = find_recipes(model, tensors, self._meta)
        for target, original in model.all_tied_weights_keys.items():
            for name, other in ((target, original), (original, target)):
                if name not in self._recipes and other in self._recipes:
                    self._recipes[name] = self._recipes[other]
        for name, meta in self._meta.items():
            recipe = self._recipes.get(name)
            if recipe is None:
                raise self._error(name, "missing_keys")
            if isinstance(recipe, Copied) and tuple(recipe.tensor.shape) != tuple(meta.shape):
                raise self._error(name, "mismatched_keys")

    def __iter__(self) -> Iterator[str]:
        """Names of the parameters."""
        return iter(self._meta)

    def tensor(self, name: str) -> Tensor:
        """The tensor that a parameter is read from by rows."""
        recipe = self._recipes[name]
        assert isinstance(recipe, Copied), f"{name} is made of several tensors"
        return recipe.tensor

    def made_of(self, name: str) -> list[list[Tensor]]:
        """See `Recipe`."""
        return self._recipes[name].made_of()

    def read(self, names: Iterable[str], storage: Callable[[str, Any], Any]) -> dict[str, Any]:
        """Name -> torch tensor with its numbers.

        storage: (name, meta tensor) -> the tensor to write into.
        """
        made = {name: storage(name, self._meta[name]) for name in names}
        groups: dict[int, list[str]] = defaultdict(list)
        for name in made:
            groups[id(self._recipes[name])].append(name)
        for group in groups.values():
            self._fill(group, made)
        return made

    def _fill(self, group: list[str], made: Mapping[str, Any]) -> None:
        try:
            self._recipes[group[0]].fill({name: made[name] for name in group})
        except (ValueError, RuntimeError, IndexError) as error:
            raise self._error(group[0], "mismatched_keys") from error

    def _error(self, name: str, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self._source}: the reference has no weight for {name} ({what}); is it complete?"
        )


def find_recipes(
    model: Any, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> dict[str, Recipe]:
    """Parameter -> how it is made; tensors that the model has no place for are left out."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    mapping = get_model_conversion_mapping(model)
    renamings = [one for one in mapping if isinstance(one, WeightRenaming)]
    converters = [one for one in mapping if isinstance(one, WeightConverter)]
    by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
    prefix = model.base_model_prefix
    found: dict[str, Recipe] = {}
    for name in sorted(tensors, key=dot_natural_key):
        target, pattern = rename_source_key(name, renamings, converters, prefix, state)
        if target not in state and name in state:  # it has its name in memory already
            target, pattern = rename_source_key(name, [], [], prefix, state)
        if target not in state:
            continue
        if pattern is None:
            found[target] = Copied(tensors[name])
            continue
        converter = by_pattern[pattern]
        recipe = found.setdefault(target, Converted(converter, model, target))
        assert isinstance(recipe, Converted)
        recipe.sources[pattern].append(tensors[name])
        for other in converter.target_patterns[1:]:
            found[target.replace(converter.target_patterns[0], other)] = recipe
    return found


def _assign(parameter: Any, made: Any) -> None:
    """Copying alone would repeat a shape of 1."""
    if parameter.shape != made.shape:
        raise ValueError(f"{tuple(made.shape)} for {tuple(parameter.shape)}")
    parameter.copy_(made)


def fill_rows(out: Any, tensor: Tensor, start: int, stop: int) -> None:
    """Rows start to stop of `tensor` into the torch tensor `out` (stop - start, ...)."""
    for first, last in cut((stop - start, *tensor.shape[1:]), values=SLAB):
        out[first:last].copy_(as_torch(tensor.rows(start + first, start + last)))


def as_torch(rows: Rows) -> Any:
    """A torch tensor with a copy of the numbers, in their own type."""
    import torch

    copied = np.array(rows)  # what is mapped from a file cannot be written to, which torch minds
    if copied.dtype.name == "bfloat16":
        return torch.from_numpy(copied.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(copied)
