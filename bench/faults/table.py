"""The table of faults and types: planting, running, and what came of it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from bench.faults import gguf_file, onnx_folder
from bench.faults.catalogue import FAULTS, Fault, sound
from bench.faults.hidden import HIDDEN
from bench.faults.models import REAL, remove, sound_file, source, target_of
from bench.faults.trial import Outcome, Trial, run_all

Key = tuple[str, str]
BY_NAME = {fault.name: fault for fault in FAULTS}


def planted(path: Path, fault: str, kind: str, out: Path) -> Path:
    """A copy of the sound file at `path` with the fault in it."""
    plant = BY_NAME[fault].plant(kind) if fault in BY_NAME else sound("").plant(kind)
    assert plant is not None
    remove(out)
    if target_of(kind) == "onnx":
        plant(onnx_folder.copy(path, out))
        return out
    file = gguf_file.read(path)
    plant(file)
    gguf_file.write(file, out)
    return out


def make_trial(fault: Fault, kind: str, work: Path) -> Trial:
    """One cell of the table, its sound file made."""
    path = sound_file(fault.model, kind, fault.options.get(target_of(kind), {}), work)
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{fault.name}-{kind}")
    out = work / "faulty" / (name + ".gguf" * (target_of(kind) == "gguf"))
    out.parent.mkdir(parents=True, exist_ok=True)
    return Trial(
        (fault.name, kind),
        partial(planted, path, fault.name, kind, out),
        source(fault.model, work),
        partial(remove, out),
    )


@dataclass
class Results:
    """What became of every cell, and of the sound file that it was planted in."""

    faults: Sequence[Fault]
    outcomes: dict[Key, Outcome] = field(default_factory=dict)

    def models(self) -> list[str]:
        """Those of the faults."""
        return list(dict.fromkeys(fault.model for fault in self.faults))

    def rungs(self, fault: Fault, kind: str) -> tuple[str, ...]:
        """The rungs that see the fault: those that the sound file does not fail as well."""
        before = self.outcomes[sound(fault.model).name, kind].rungs
        return tuple(r for r in self.outcomes[fault.name, kind].rungs if r not in before)

    def seen(self, fault: Fault, kind: str) -> bool:
        """Whether there is a verdict, and because of the fault."""
        outcome = self.outcomes[fault.name, kind]
        return outcome.refused or bool(self.rungs(fault, kind))

    def cell(self, fault: Fault, kind: str) -> str:
        """What the table says; in bold what must not be."""
        if (fault.name, kind) not in self.outcomes:
            return ""
        outcome = self.outcomes[fault.name, kind]
        if outcome.crashed:
            return "**crash**"
        if outcome.refused:
            return "refused"
        if self.seen(fault, kind):
            return ", ".join(self.rungs(fault, kind))
        said = f"not seen: {outcome.figure}"
        return said if (fault.name, kind) in HIDDEN else f"**{said}**"

    def sound_cell(self, model: str, kind: str) -> str:
        """The same of a file without a fault."""
        outcome = self.outcomes[sound(model).name, kind]
        return f"passes: {outcome.figure}" if outcome.ok else f"**fails: {outcome.finding}**"

    def wrong(self) -> list[Key]:
        """Cells that are not as they must be."""
        false_alarms = [
            (sound(model).name, kind)
            for model in self.models()
            for kind in {kind for _, kind in self.outcomes}
            if not self.outcomes[sound(model).name, kind].ok
        ]
        missed = [
            (fault.name, kind)
            for fault in self.faults
            for name, kind in self.outcomes
            if name == fault.name
            and not self.seen(fault, kind)
            and (fault.name, kind) not in HIDDEN
        ]
        return [*false_alarms, *missed]


def fill(
    faults: Sequence[Fault],
    types: Collection[str],
    *,
    work: Path,
    tokens: int,
    workers: int,
    resume: bool = False,
) -> Results:
    """Run every cell, telling each as it ends; small models and sound files first.

    resume: take over the cells that an interrupted run in `work` has ended.
    """
    record = work / "outcomes.jsonl"
    results = Results(faults, _read(record) if resume else {})
    rows = sorted([*map(sound, results.models()), *faults], key=lambda fault: fault.model == REAL)
    cells = [(fault, kind) for fault in rows for kind in types if fault.plant(kind)]
    left = [(f, kind) for f, kind in cells if (f.name, kind) not in results.outcomes]
    trials = [make_trial(fault, kind, work) for fault, kind in left]
    start = time.perf_counter()
    with record.open("a" if resume else "w", encoding="utf-8") as lines:
        for trial, outcome in run_all(trials, tokens=tokens, workers=workers):
            results.outcomes[trial.key] = outcome
            lines.write(json.dumps([trial.key, asdict(outcome)]) + "\n")
            lines.flush()
            name, kind = trial.key
            where = f"[{len(results.outcomes)}/{len(cells)} {time.perf_counter() - start:4.0f} s]"
            said = f"{name}, {kind}: {_short(outcome)}  {outcome.finding[:150]}"
            print(where, said, file=sys.stderr, flush=True)
    return results


def _read(record: Path) -> dict[Key, Outcome]:
    if not record.exists():
        return {}
    pairs = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    return {
        (name, kind): Outcome(**{**values, "rungs": tuple(values["rungs"])})
        for (name, kind), values in pairs
    }


def _short(outcome: Outcome) -> str:
    if outcome.crashed or outcome.refused:
        return "crash" if outcome.crashed else "refused"
    return f"passes ({outcome.figure})" if outcome.ok else f"fails {', '.join(outcome.rungs)}"
