"""One file against the reference, position by position; kept for the next run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ropeconv.artefact import Artefact
from ropeconv.errors import CheckpointError
from ropeconv.kit.replacing.record import replacing_record
from ropeconv.longctx.compare.files.candidates import Candidate
from ropeconv.longctx.compare.files.passes import ReferencePasses
from ropeconv.longctx.compare.files.speed import Reading, generation_speed
from ropeconv.longctx.measuring.bands import Losses
from ropeconv.longctx.measuring.records import fingerprint_of, not_written
from ropeconv.proof.compare import Rows, measure_rows, side_by_side
from ropeconv.proof.run import open_any
from ropeconv.target import Progress

REFERENCE, FILE = "PyTorch", "the file"


@dataclass(frozen=True)
class Measured:
    """Of a text of n tokens.

    kl: (n,) nats, of the file's next-token distribution from the reference's; same_top: (n,)
    whether both rank the same token first; losses, reference_losses: (n - 1,) nats. reading,
    generating: tokens a second, NaN where they were not told.
    """

    kl: NDArray[np.float64]
    same_top: NDArray[np.bool_]
    losses: Losses
    reference_losses: Losses
    reading: float
    generating: float


def measure_file(
    candidate: Candidate, reference: ReferencePasses, progress: Progress | None
) -> Measured:
    """Run the file over every pass of the text; where there are two, a position counts in the
    first that reaches it. CheckpointError with the runtime's reason.
    """
    _, artefact = open_any(candidate.path)  # anew, so that its runtime's memory goes with it
    reading = Reading()
    generating = generation_speed(artefact, reference.ids)
    parts: list[Rows] = []
    done = 0
    for number, one in enumerate(reference.passes):
        rows = _rows(artefact, reference, number, reading, progress)
        parts.append(_from(rows, done))
        done = one.tokens
    if not all(np.isfinite(part.kl).all() for part in parts):
        raise CheckpointError(
            f"{candidate.path}: its logits are not finite; see ropeconv verify, or leave it out"
        )
    return Measured(
        kl=np.concatenate([part.kl for part in parts]),
        same_top=np.concatenate([part.same_top for part in parts]),
        losses=np.concatenate([part.loss_artefact for part in parts])[:-1].astype(np.float32),
        reference_losses=np.concatenate([part.loss_reference for part in parts])[:-1].astype(
            np.float32
        ),
        reading=reading.speed,
        generating=generating,
    )


def _rows(
    artefact: Artefact,
    reference: ReferencePasses,
    number: int,
    reading: Reading,
    progress: Progress | None,
) -> Rows:
    """The numbers of one pass; a window of each side is held at a time."""
    one, ids = reference.passes[number], reference.ids
    own = artefact.logits(list(ids[: one.tokens]), one.context)
    sides = {REFERENCE: reference.logits(number), FILE: reading.timed(own)}
    parts = []
    done = 0
    for blocks in side_by_side(sides, total=one.tokens):
        count = len(blocks[FILE])
        following = np.array(ids[done + 1 : done + 1 + count], np.int64)
        parts += measure_rows(blocks, [(REFERENCE, FILE)], following)
        done += count
        del blocks  # before the next ones are made
        if progress is not None:
            progress(done, one.tokens)
    return _joined(parts)


def _joined(parts: list[Rows]) -> Rows:
    names = Rows.__dataclass_fields__
    return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _from(rows: Rows, start: int) -> Rows:
    return Rows(*(getattr(rows, name)[start:] for name in Rows.__dataclass_fields__))


@dataclass(frozen=True)
class FileStore:
    """Measured files in a folder, each under a name that changes with the file and the pass."""

    folder: Path
    reference: str

    def path(self, candidate: Candidate) -> Path:
        """The candidate's record."""
        stats = [(file.resolve(), file.stat()) for file in candidate.files]
        said = [(str(file), stat.st_size, stat.st_mtime_ns) for file, stat in stats]
        return self.folder / f"{fingerprint_of([self.reference, said])[:24]}.npz"

    def load(self, candidate: Candidate) -> Measured | None:
        """What an earlier run measured, or None; an unreadable record counts as none."""
        try:
            with np.load(self.path(candidate), allow_pickle=False) as found:
                speeds = json.loads(str(found["speeds"]))
                names = ("kl", "same_top", "losses", "reference_losses")
                return Measured(*(found[name] for name in names), *map(float, speeds))
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            return None

    def save(self, candidate: Candidate, measured: Measured) -> None:
        """Written beside and renamed; OutputError with the reason when it cannot be."""
        path = self.path(candidate)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing_record(path) as part, part.open("wb") as file:
                np.savez(
                    file,
                    kl=measured.kl,
                    same_top=measured.same_top,
                    losses=measured.losses,
                    reference_losses=measured.reference_losses,
                    speeds=json.dumps([str(measured.reading), str(measured.generating)]),
                )
        except OSError as error:
            raise not_written(path, error, "folder") from error
