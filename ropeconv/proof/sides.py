"""The references of a proof: transformers with the file's own weights, and with the source's.

A file whose weights are in blocks is compared twice. With a reference that has its own weights,
dequantised: that is whether the file computes what its numbers say, and is judged. With the source:
that is what quantisation costs, and is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.artefact import Artefact
from ropeconv.config.bundles import as_stored
from ropeconv.gates import Gates
from ropeconv.kit.float_types import FLOATS
from ropeconv.model import Tensor
from ropeconv.proof.reference.arithmetic import COSTS, Arithmetic
from ropeconv.proof.reference.layerwise import LayerwiseReference, Scattered
from ropeconv.proof.structure import Expected, second_output

PLAIN = "PyTorch"
OWN = "PyTorch with the file's own weights"
SOURCE = "PyTorch with the source's weights"


@dataclass(frozen=True)
class Side:
    """A reference by name, the limits against it, and whether they are a verdict.

    exact: the limits of a float twin, which is run against the file's own weights.
    """

    name: str
    reference: LayerwiseReference
    gates: Gates
    exact: Gates | None
    judged: bool


@dataclass(frozen=True)
class Forward:
    """What the layers of a reference made of every text and every call beside: (b, s, e) torch
    tensors, which are small beside logits.
    """

    side: Side
    texts: Sequence[Any]
    calls: Sequence[Any]

    def call_logits(self) -> list[NDArray[np.float32]]:
        """(b, s, vocab) of every call."""
        return self.side.reference.heads(self.calls) if self.calls else []


def find_sides(
    artefact: Artefact, expected: Expected, gates: Gates, arithmetic: Arithmetic
) -> list[Side]:
    """The judged side, and the other where the artefact's weights are in other blocks than the
    source's. gates: the target's for the artefact's type.
    """
    mine, theirs = artefact.checkpoint.tensors, expected.model.checkpoint.tensors
    output, config = second_output(artefact, expected.model), expected.config
    if output is not None:
        theirs = {**theirs, output: theirs[expected.model.stack.embedding.weight.template]}
        config = {**config, "tie_word_embeddings": False}
    floor = COSTS[arithmetic.dtype]
    gates = gates if floor is None else gates.floored(floor)

    def side(name: str, tensors: Mapping[str, Tensor], limits: Gates, *, judged: bool) -> Side:
        reference = LayerwiseReference(
            as_stored(tensors, expected.model.stack),
            config,
            source=expected.model.checkpoint.path,
            device=arithmetic.device,
            dtype=arithmetic.dtype,
        )
        return Side(name, reference, limits, gates.exact, judged)

    read = [*expected.model.weights, *([] if output is None else [output])]
    kinds = {name: mine[name].dtype for name in read if name in mine}
    blocks = [name for name, kind in kinds.items() if kind not in FLOATS]
    if not blocks or gates.own is None:
        return [side(PLAIN, theirs, gates, judged=True)]
    if all(kinds[name] == theirs[name].dtype for name in blocks):
        return [side(PLAIN, theirs, gates.own, judged=True)]
    # tensors that no forward pass reads are the source's
    own = {**theirs, **{name: mine[name] for name in kinds}}
    return [
        side(OWN, own, gates.own, judged=True),
        side(SOURCE, theirs, gates, judged=False),
    ]


def run_layers(
    side: Side,
    texts: Sequence[Sequence[int]],
    calls: Sequence[Scattered],
    progress: Callable[[int, int], None] | None,
) -> Forward:
    """All of a side's passes through its layers at once, so that every weight is read once.

    Each text is one pass, because LongRoPE chooses its table by the length of the pass.
    """
    reference = side.reference
    if not texts and not calls:
        return Forward(side, [], [])
    asked = [*(reference.call([list(ids)]) for ids in texts), *(reference.call(*c) for c in calls)]
    hidden = reference.hidden(asked, progress)
    return Forward(side, hidden[: len(texts)], hidden[len(texts) :])
