"""Which weights a layer multiplies by, and what by: seen from outside, whatever the module does.

A product is known by the storage of its weight, so that linear layers, experts that are entries of
one parameter and parameters that are stored the other way round are all seen alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ropeconv.errors import CheckpointError
from ropeconv.importance.sums import Sums

ROWS = 1024  # inputs whose squares are in memory at a time


@dataclass
class Seen:
    """One parameter's sums so far: torch tensors (n, c) float64 and (n,) int64."""

    squares: Any
    counts: Any

    @property
    def sums(self) -> Sums:
        """As arrays."""
        squares = np.array(self.squares.cpu().numpy(), np.float64)
        return Sums(squares, np.array(self.counts.cpu().numpy(), np.int64))


class Squares(dict[str, Seen]):
    """Sums of squares by parameter."""

    def add(self, name: str, whole: Any, number: int, rows: Any) -> None:
        """Count (m, c) inputs of a matrix of the parameter `whole`: of an expert, or number 0."""
        import torch

        if name not in self:
            count = whole.shape[0] if whole.ndim > 2 else 1
            squares = torch.zeros(count, rows.shape[1], dtype=torch.float64, device=rows.device)
            self[name] = Seen(squares, torch.zeros(count, dtype=torch.int64))
        for start in range(0, len(rows), ROWS):
            self[name].squares[number] += rows[start : start + ROWS].double().square_().sum(0)
        self[name].counts[number] += len(rows)


class Tally(Protocol):
    """What adds inputs up: see Squares."""

    def add(self, name: str, whole: Any, number: int, rows: Any) -> None:
        """Count some."""


def watching(weights: Mapping[str, Any], tally: Tally, *, prefix: str) -> Any:
    """A context in which the inputs of every product with one of `weights` go to `tally`.

    weights: name in the layer -> torch tensor; the tally's: prefix and name. CheckpointError for a
    product whose experts cannot be told apart.
    """
    from torch.overrides import TorchFunctionMode

    places = {
        value.untyped_storage().data_ptr(): (f"{prefix}{name}", value)
        for name, value in weights.items()
        if value.ndim > 1
    }
    find = _products()

    class Watch(TorchFunctionMode):  # type: ignore[misc] # torch is not typed
        """Looks at the arguments of products, and lets every call through."""

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            of = find.get(func)
            if of is not None:
                inputs, weight, columns = of(args, kwargs or {})
                place = places.get(weight.untyped_storage().data_ptr())
                if place is not None:
                    _add(tally, *place, inputs, weight, columns)
            return func(*args, **(kwargs or {}))

    return Watch()


Operands = Callable[[Any, Mapping[str, Any]], tuple[Any, Any, int]]


def _products() -> dict[Any, Operands]:
    """torch function -> (arguments) -> inputs, weight, columns."""
    import torch

    def linear(args: Any, named: Mapping[str, Any]) -> tuple[Any, Any, int]:
        inputs, weight = [*args, *named.values()][:2]
        return inputs, weight, weight.shape[-1]

    def product(args: Any, named: Mapping[str, Any]) -> tuple[Any, Any, int]:
        inputs, weight = [*args, *named.values()][:2]
        return inputs, weight, weight.shape[-2] if weight.ndim > 1 else weight.shape[0]

    def added(args: Any, named: Mapping[str, Any]) -> tuple[Any, Any, int]:
        return product(args[1:], named)

    kinds = (torch.matmul, torch.mm, torch.bmm)
    methods = (torch.Tensor.matmul, torch.Tensor.mm, torch.Tensor.bmm, torch.Tensor.__matmul__)
    return {
        torch.nn.functional.linear: linear,
        **dict.fromkeys((*kinds, *methods), product),
        **dict.fromkeys((torch.addmm, torch.baddbmm), added),
    }


def _add(tally: Tally, name: str, whole: Any, inputs: Any, weight: Any, columns: int) -> None:
    number = 0
    if whole.ndim == 3:
        if weight.ndim != 2:
            raise CheckpointError(
                f"transformers multiplies by all experts of {name} at once, so their inputs cannot "
                f"be told apart; report this family"
            )
        number = (weight.storage_offset() - whole.storage_offset()) // whole.stride(0)
    tally.add(name, whole, number, inputs.detach().reshape(-1, columns))
