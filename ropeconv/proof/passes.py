"""The passes of the text through the artefact's runtime, and what each is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ropeconv.artefact import Artefact, Run, RunSettings
from ropeconv.errors import CheckpointError, ConfigError
from ropeconv.gates import Gates
from ropeconv.proof.clock import Clock
from ropeconv.proof.compare import compare_logits
from ropeconv.proof.report import AS_RUN, FILE, PRECISE, TWIN, Measured
from ropeconv.proof.sides import Forward, Side
from ropeconv.proof.text import Pass


@dataclass(frozen=True)
class Comparison:
    """Two parties by name, the limits where there are any, and whether they are a verdict."""

    reference: str
    artefact: str
    gates: Gates | None
    judged: bool


def find_runs(artefact: Artefact, *, exact: bool, settings: RunSettings) -> dict[str, Run]:
    """How the artefact is run, by name; ConfigError for what it or its runtime cannot do,
    OutputError for a twin that has no room.
    """
    runs = {FILE: artefact.logits}
    if exact and artefact.twin is None:
        raise ConfigError(
            f"--exact: {artefact.path.name} ({artefact.type}) has no float twin to run; leave it "
            f"out"
        )
    if exact and artefact.twin is not None:
        runs[TWIN] = artefact.twin()
    elif artefact.precise is not None:
        runs[PRECISE] = artefact.precise
    if settings != RunSettings():
        if artefact.as_run is None:
            raise ConfigError(
                f"{settings.words}: the runtime of {artefact.path.name} has no such setting; leave "
                f"--kv-type and --flash-attn out"
            )
        runs[AS_RUN] = artefact.as_run(settings)
    return runs


def find_comparisons(runs: Mapping[str, Run], sides: Sequence[Side]) -> list[Comparison]:
    """In the order of the report. A twin, and float products against the file's own weights, are
    judged beside or in place of the file as it is; what the user's settings cost is told.
    """
    judged = sides[0]
    found = []
    if TWIN in runs:
        found.append(Comparison(judged.name, TWIN, judged.exact, judged=True))
    plain = PRECISE if PRECISE in runs and len(sides) > 1 else FILE
    found.append(Comparison(judged.name, plain, judged.gates, judged=True))
    found += [Comparison(side.name, FILE, side.gates, judged=False) for side in sides[1:]]
    if AS_RUN in runs:
        others = (FILE, sides[-1].name)
        found += [Comparison(other, AS_RUN, None, judged=False) for other in others]
    return found


def measure(
    runs: Mapping[str, Run],
    comparisons: Sequence[Comparison],
    forwards: Sequence[Forward],
    ids: Sequence[int],
    *,
    number: int,
    run: Pass,
    trained: int,
    clock: Clock,
    progress: Callable[[int, int], None] | None,
) -> list[Measured]:
    """One pass over the text: every party runs once, whatever it is compared with.

    number: of the pass, in the order of `forwards`' texts.
    """
    parties: dict[str, Iterable[NDArray[np.float32]]] = {
        forward.side.name: forward.side.reference.head(forward.texts[number])
        for forward in forwards
    }
    used = {name for pair in comparisons for name in (pair.reference, pair.artefact)}
    parties |= {name: _run(name, one, ids, run) for name, one in runs.items() if name in used}
    found = compare_logits(
        {name: clock.each(name, party) for name, party in parties.items()},
        [(pair.reference, pair.artefact) for pair in comparisons],
        ids,
        trained=trained,
        progress=progress,
    )
    return [
        Measured(
            run,
            tuple(bands),
            whole,
            pair.gates,
            judged=pair.judged,
            artefact=pair.artefact,
            reference=pair.reference,
        )
        for pair, (bands, whole) in zip(comparisons, found, strict=True)
    ]


def _run(name: str, run: Run, ids: Sequence[int], over: Pass) -> Iterable[NDArray[np.float32]]:
    """The artefact's logits. The user's settings are the user's: where they do not run, that is no
    verdict on the file.
    """
    try:
        yield from run(ids, over.context)
    except CheckpointError as error:
        if name != AS_RUN:
            raise
        raise ConfigError(f"{name}: {error}") from error
