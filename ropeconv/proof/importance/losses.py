"""What it costs a model that some of its tensors are rounded: the KL divergence of the next token.

Every question is a pass of its own from the layer on where its tensors are; all of them go through
the model together, a layer in memory at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.config.bundles import as_stored
from ropeconv.importance.moments import Rounded
from ropeconv.model import Model, Rows, Tensor
from ropeconv.proof.reference.layerwise import LayerwiseReference, first_of

Question = tuple[str, ...]
"""Names of tensors that are rounded together."""


@dataclass
class Switched:
    """A tensor that is rounded while it is on."""

    name: str
    tensor: Tensor
    rounded: Rounded
    on: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's."""
        return self.tensor.shape

    @property
    def dtype(self) -> str:
        """The tensor's."""
        return self.tensor.dtype

    def rows(self, start: int, stop: int) -> Rows:
        """The numbers, rounded or not."""
        rows = self.tensor.rows(start, stop)
        return self.rounded(self.name, rows) if self.on else rows

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """The tensor's."""
        return self.tensor.raw_rows(start, stop)


@contextmanager
def _on(tensors: Mapping[str, Switched], names: Question) -> Iterator[None]:
    for name in names:
        tensors[name].on = True
    try:
        yield
    finally:
        for name in names:
            tensors[name].on = False


def find_losses(
    model: Model,
    config: Mapping[str, Any],
    ids: Sequence[int],
    questions: Sequence[Question],
    rounded: Rounded,
) -> list[float]:
    """Nats a token, one for each question; of tensors outside of layers, those of the head.

    config: what transformers is told. Weights that several tensors share go by the first one's
    layer.
    """
    import torch

    tensors = {
        name: Switched(name, tensor, rounded) for name, tensor in model.checkpoint.tensors.items()
    }
    reference = LayerwiseReference(
        as_stored(tensors, model.stack), config, source=model.checkpoint.path
    )
    places = model.stack.places()
    by_layer: dict[int | None, list[Question]] = defaultdict(list)
    for question in questions:
        by_layer[places[question[0]].layer].append(question)
    with torch.no_grad():
        call = reference.call([list(ids)])
        outputs = _through(reference, call, by_layer, tensors)
        plain = outputs.pop(())
        (hidden,) = reference.ends([call], [plain])
        base = _log_softmax(reference, hidden)
        found: dict[Question, float] = {}
        for question, output in outputs.items():
            (other,) = reference.ends([call], [output])
            found[question] = _divergence(base, _log_softmax(reference, other))
        for question in by_layer[None]:
            with _on(tensors, question):
                found[question] = _divergence(base, _log_softmax(reference, hidden))
    return [found[question] for question in questions]


def _through(
    reference: LayerwiseReference,
    call: Any,
    by_layer: Mapping[int | None, list[Question]],
    tensors: Mapping[str, Switched],
) -> dict[Question, Any]:
    """What the last layer returns to every question, and to none, ()."""
    network = reference.network
    hidden, steps = network.begin(call)
    outputs: dict[Question, Any] = {(): hidden}
    for number, step in enumerate(steps):
        weights = network.read_layer(number, {})
        begun = {}
        for question in by_layer.get(number, []):
            with _on(tensors, question):
                changed = network.read_layer(number, {})
            begun[question] = network.run_layer(number, changed, first_of(outputs[()]), step)
        # none the last: what a layer leaves for later ones is then the model's own
        for question in [*outputs][::-1]:
            before = first_of(outputs[question])
            outputs[question] = network.run_layer(number, weights, before, step)
        outputs |= begun
    return outputs


def _log_softmax(reference: LayerwiseReference, hidden: Any) -> Any:
    """(s, v) of one text."""
    import torch

    (logits,) = reference.heads([hidden])
    return torch.from_numpy(logits[0]).log_softmax(-1)


def _divergence(base: Any, other: Any) -> float:
    return float((base.exp() * (base - other)).sum(-1).mean())
