"""The passes of the text through the artefact's runtime, and what each is compared with.

A file whose weights are in blocks is compared twice. With a reference that has its own weights,
dequantised: that is whether the file computes what its numbers say, and is judged. With the source:
that is what quantisation costs, and is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ropeconv.artefact import Artefact
from ropeconv.gates import Gates
from ropeconv.kit.float_types import FLOATS
from ropeconv.model import Tensor
from ropeconv.proof.compare import compare_logits
from ropeconv.proof.reference.layerwise import LayerwiseReference
from ropeconv.proof.report import Measured
from ropeconv.proof.structure import Expected
from ropeconv.proof.text import Pass

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Side:
    """A reference, the limits against it, and whether they are a verdict."""

    reference: LayerwiseReference
    gates: Gates
    judged: bool


def find_sides(artefact: Artefact, expected: Expected, gates: Gates) -> list[Side]:
    """transformers with the artefact's own weights where those are others in blocks, then with the
    source's. gates: the target's for the artefact's type.
    """
    checkpoint = expected.model.checkpoint
    mine, theirs = artefact.checkpoint.tensors, checkpoint.tensors
    source = LayerwiseReference(theirs, expected.config, source=checkpoint)
    kinds = {name: mine[name].dtype for name in expected.model.weights if name in mine}
    blocks = [name for name, kind in kinds.items() if kind not in FLOATS]
    if not blocks or gates.own is None:
        return [Side(source, gates, judged=True)]
    if all(kinds[name] == theirs[name].dtype for name in blocks):
        return [Side(source, gates.own, judged=True)]
    own = LayerwiseReference(_own_weights(mine, theirs, kinds), expected.config, source=checkpoint)
    return [Side(own, gates.own, judged=True), Side(source, gates, judged=False)]


def _own_weights(
    mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], names: Mapping[str, str]
) -> dict[str, Tensor]:
    """The artefact's tensors; those that no forward pass reads are the source's."""
    return {**theirs, **{name: mine[name] for name in names}}


def measure(
    artefact: Artefact,
    sides: Sequence[Side],
    ids: Sequence[int],
    *,
    run: Pass,
    trained: int,
    progress: Progress | None,
) -> list[Measured]:
    """One pass over the text, against every side in order.

    The artefact runs once; a second time with float products, where its runtime can be told so:
    then the verdict hangs on those, and what the rounding of activations costs is a part of what is
    told.
    """
    if artefact.precise is None or len(sides) == 1:
        groups = [(artefact.logits, list(sides))]
    else:
        judged = [side for side in sides if side.judged]
        told = [side for side in sides if not side.judged]
        groups = [(artefact.precise, judged), (artefact.logits, told)]

    def report(stage: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, total: progress(stage, done, total)

    measured = []
    for logits, group in groups:
        theirs = [side.reference.logits(ids, report("PyTorch")) for side in group]
        found = compare_logits(
            theirs, logits(ids, run.context), ids, trained=trained, progress=report("artefact")
        )
        for side, (bands, whole) in zip(group, found, strict=True):
            measured.append(Measured(run, tuple(bands), whole, side.gates, judged=side.judged))
    return measured
