"""The sums of a model's matrices over windows of a text, under the checkpoint's own names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.stack import Stack
from ropeconv.config.bundles import as_stored
from ropeconv.errors import CheckpointError
from ropeconv.importance.sums import Sums
from ropeconv.model import Model, Tensor
from ropeconv.proof.importance.products import Squares, watching
from ropeconv.proof.reference.arithmetic import Arithmetic
from ropeconv.proof.reference.layerwise import LayerwiseReference, Progress

# two axes, and multiplied by nothing that a quantiser weighs: routers stay float32
NO_MATRICES = frozenset(
    {
        *(Role.TOKEN_EMBEDDING, Role.OUTPUT, Role.CONV, Role.Q_NORM, Role.K_NORM),
        *(Role.ROUTER, Role.ROUTER_BIAS, Role.SHARED_ROUTER),
    }
)


class Gatherer:
    """Sums of `model`'s matrices by transformers under `config`, one layer in memory at a time.

    CheckpointError where the tensors do not make transformers' model.
    """

    def __init__(self, model: Model, config: Mapping[str, Any], arithmetic: Arithmetic) -> None:
        self.config = config
        self._stack = model.stack
        self._source = model.checkpoint.path
        self._tensors = as_stored(model.checkpoint.tensors, model.stack)
        self.reference = LayerwiseReference(
            self._tensors,
            config,
            source=model.checkpoint.path,
            device=arithmetic.device,
            dtype=arithmetic.dtype,
        )
        # one product an expert: grouped ones do not say whose rows are whose
        self.reference.model.set_experts_implementation("eager")

    def gather(
        self, windows: Sequence[Sequence[int]], *, head: bool, progress: Progress | None = None
    ) -> dict[str, Sums]:
        """Name in the checkpoint -> sums; an expert's own where each has a tensor. head: the
        output's matrix too.
        """
        network, seen = self.reference.network, Squares()

        def watch(number: int, weights: Mapping[str, Any]) -> Any:
            return watching(weights, seen, prefix=network.layer_prefix(number))

        calls = [self.reference.call([list(ids)]) for ids in windows]
        hidden = self.reference.hidden(calls, progress, watch)
        found = {name: one.sums for name, one in seen.items()}
        if head:
            found[network.head_name] = _sums_of(hidden)
        by_name = self.by_tensor(found)
        self._check_complete(by_name)
        return by_name

    def by_tensor(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of parameters to what is of the tensors that they are made of; of several
        experts' it is Sums.
        """
        names = {id(tensor): name for name, tensor in self._tensors.items()}
        parts = _parts(self._stack)
        made: dict[str, Any] = {}
        for parameter, sums in found.items():
            for own, tensors in _shares(sums, self.reference.network.weights.made_of(parameter)):
                for name in (names[id(tensor)] for tensor in tensors):
                    made.update(_apart(name, own, parts.get(name)))
        return made

    def _check_complete(self, found: Mapping[str, Sums]) -> None:
        for name, place in self._stack.places().items():
            weight = place.weight
            unlike = weight.role in NO_MATRICES or len(weight.shape) < 2
            if place.layer is None or unlike or name in found:
                continue
            raise CheckpointError(
                f"{self._source}: no product with {name} was seen in transformers' model, so its "
                f"inputs are not known; report this family"
            )


def _parts(stack: Stack) -> dict[str, list[tuple[str, ...]]]:
    """A tensor that holds several weights -> their names, one tuple an expert."""
    return {
        name: list(bundle.names(layer, experts)) for name, bundle, layer, experts in stack.bundles()
    }


def _shares(
    sums: Sums, made_of: Sequence[Sequence[Tensor]]
) -> Iterable[tuple[Sums, Sequence[Tensor]]]:
    """Sums, and the tensors whose they are: one entry's each where the experts are apart."""
    if len(made_of) == 1:
        return [(sums, made_of[0])]
    return [(_entry(sums, number), tensors) for number, tensors in enumerate(made_of)]


def _apart(name: str, sums: Sums, parts: list[tuple[str, ...]] | None) -> dict[str, Sums]:
    if parts is None:
        return {name: sums}
    shares = [sums] if len(parts) == 1 else [_entry(sums, n) for n in range(len(parts))]
    return {part: own for own, names in zip(shares, parts, strict=True) for part in names}


def _entry(sums: Sums, number: int) -> Sums:
    return Sums(sums.squares[number : number + 1], sums.counts[number : number + 1])


def _sums_of(hidden: Sequence[Any]) -> Sums:
    """Of what the head is given: (1, s, e) torch tensors."""
    squares = sum(rows.double().square().sum((0, 1)) for rows in hidden)
    count = sum(rows.shape[0] * rows.shape[1] for rows in hidden)
    return Sums(np.array(squares.cpu().numpy())[None], np.array([count], np.int64))
