"""Finished files of one model side by side, against one reference pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ropeconv.config.bundles import as_stored
from ropeconv.errors import CheckpointError, ConfigError
from ropeconv.kit.progress import StageProgress, within
from ropeconv.longctx.compare.files.candidates import (
    Candidate,
    check_frequencies,
    open_candidates,
)
from ropeconv.longctx.compare.files.choice import frontier, to_ship
from ropeconv.longctx.compare.files.measured import REFERENCE, FileStore, Measured, measure_file
from ropeconv.longctx.compare.files.passes import ReferencePasses
from ropeconv.longctx.compare.files.question import FilesQuestion
from ropeconv.longctx.measuring.bands import (
    BANDS,
    LossBand,
    Losses,
    band_width,
    measure_band,
    split_bands,
    standard_error,
)
from ropeconv.longctx.measuring.processes import Processes
from ropeconv.longctx.measuring.records import fingerprint_of
from ropeconv.longctx.measuring.texts import held_out_text
from ropeconv.proof.frequencies import switches
from ropeconv.proof.reference.layerwise import LayerwiseReference
from ropeconv.proof.structure import Expected
from ropeconv.proof.text import leading_ids, plan_passes, wanted_tokens


@dataclass(frozen=True)
class Perplexities:
    """Losses of one side: by band, below and past L; long: None where the text ends before."""

    bands: Sequence[LossBand]
    short: LossBand
    long: LossBand | None


@dataclass(frozen=True)
class FileResult:
    """One file, measured.

    size: bytes of all that its runtime loads; bits: of them for each weight of the source. kl:
    mean over all positions, nats, error its standard error; kl_short, kl_long: below and past L.
    top1: share of positions where both rank the same token first. reading, generating: tokens a
    second, NaN where they were not told. best: no other file is both smaller and of lower KL.
    """

    label: str
    path: Path
    type: str
    size: int
    bits: float
    kl: float
    error: float
    kl_short: float
    kl_long: float | None
    top1: float
    perplexities: Perplexities
    reading: float
    generating: float
    best: bool = False


@dataclass(frozen=True)
class FilesComparison:
    """Everything that was measured.

    source: what the files were made from; weights: its numbers; trained, context: L and L';
    reference: PyTorch's own losses; ship: the label of the file of the lowest KL up to max_bytes,
    None where none is so small or no size was stated.
    """

    source: str
    scaling: str
    trained: int
    context: int
    tokens: int
    weights: int
    reference: Perplexities
    results: Sequence[FileResult]
    max_bytes: int | None
    ship: str | None


def compare_files(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    question: FilesQuestion | None = None,
    progress: StageProgress | None = None,
) -> FilesComparison | None:
    """Measure finished files of one model against transformers in float32.

    out: a folder, in whose `rows` measured files and the reference's pass stay for the next run.
    progress: in tokens of a file. Under `accelerate launch` the main process works alone, for the
    sake of the speeds, and the others return None. ConfigError in one line for files of different
    models or scalings; RopeconvError for damaged files, and a text that is too short.
    """
    question = question or FilesQuestion()
    processes = Processes()
    if not processes.main:
        return None
    candidates = open_candidates([Path(path) for path in paths], question)
    expected = candidates[0].expected
    reference = _reference(expected, processes.device)
    check_frequencies(candidates, reference)
    ids = _ids(candidates, expected, question)
    passes = ReferencePasses(
        reference,
        ids,
        plan_passes(ids, switch=_switch(candidates, reference), trained=_trained(expected)),
        _identity(expected),
        Path(out) / "rows",
    )
    found = _measure_all(candidates, passes, progress)
    return _summary(candidates, found, question, len(ids))


def _reference(expected: Expected, device: str) -> LayerwiseReference:
    model = expected.model
    return LayerwiseReference(
        as_stored(model.checkpoint.tensors, model.stack),
        expected.config,
        source=model.checkpoint.path,
        device=device,
    )


def _trained(expected: Expected) -> int:
    return expected.rope.original_context


def _identity(expected: Expected) -> str:
    return fingerprint_of(
        [expected.model.checkpoint.fingerprint, sorted(dict(expected.config).items())]
    )


def _switch(candidates: Sequence[Candidate], reference: LayerwiseReference) -> int | None:
    """Where either side changes its table, as LongRoPE does."""
    tables = [n for one in candidates for n in one.artefact.frequencies.values() if n is not None]
    ends = [*map(switches, tables), *map(switches, reference.frequencies().values())]
    return min((end for end in ends if end is not None), default=None)


def _ids(candidates: Sequence[Candidate], expected: Expected, question: FilesQuestion) -> list[int]:
    """The text's tokens, which every file's own tokenizer must give."""
    rope = expected.rope
    wanted = wanted_tokens(question.tokens, trained=rope.original_context, context=rope.context)
    if wanted < 2 * BANDS:
        raise ConfigError(f"--tokens {wanted}: give {2 * BANDS} or more")
    text = held_out_text(question.text)
    first, *others = candidates
    ids = leading_ids(first.artefact.tokenize, text, wanted)
    if len(ids) < wanted:
        raise CheckpointError(
            f"the text has {len(ids)} tokens and {wanted} are needed; give a longer text or fewer "
            f"--tokens"
        )
    for other in others:
        if leading_ids(other.artefact.tokenize, text, wanted) != ids:
            raise ConfigError(
                f"{other.path}: its tokenizer splits the text otherwise than that of {first.path}, "
                f"so their numbers cannot be compared; leave one of them out"
            )
    return ids


def _measure_all(
    candidates: Sequence[Candidate], passes: ReferencePasses, progress: StageProgress | None
) -> list[Measured]:
    store = FileStore(passes.folder, passes.fingerprint)
    missing = [one for one in candidates if store.load(one) is None]
    if missing:
        passes.run(within(progress, REFERENCE))
    for one in missing:
        store.save(one, measure_file(one, passes, within(progress, one.label)))
    return [kept for one in candidates if (kept := store.load(one)) is not None]


def _summary(
    candidates: Sequence[Candidate],
    found: Sequence[Measured],
    question: FilesQuestion,
    tokens: int,
) -> FilesComparison:
    expected = candidates[0].expected
    model, rope = expected.model, expected.rope
    weights = sum(math.prod(model.tensor(name).shape) for name in model.weights)
    trained = rope.original_context
    pairs = zip(candidates, found, strict=True)
    results = [_result(one, kept, weights=weights, trained=trained) for one, kept in pairs]
    best = {result.label for result in frontier(results)}
    ship = to_ship(results, question.max_bytes)
    return FilesComparison(
        source=str(model.checkpoint.path),
        scaling=rope.kind,
        trained=trained,
        context=rope.context,
        tokens=tokens,
        weights=weights,
        reference=_perplexities(found[0].reference_losses, trained),
        results=[replace(result, best=result.label in best) for result in results],
        max_bytes=question.max_bytes,
        ship=None if ship is None else ship.label,
    )


def _result(one: Candidate, kept: Measured, *, weights: int, trained: int) -> FileResult:
    past = kept.kl[trained:]
    return FileResult(
        label=one.label,
        path=one.path,
        type=one.artefact.type,
        size=one.size,
        bits=8 * one.size / weights,
        kl=float(kept.kl.mean()),
        error=standard_error(kept.kl),
        kl_short=float(kept.kl[:trained].mean()),
        kl_long=float(past.mean()) if len(past) else None,
        top1=float(np.mean(kept.same_top)),
        perplexities=_perplexities(kept.losses, trained),
        reading=kept.reading,
        generating=kept.generating,
    )


def _perplexities(losses: Losses, trained: int) -> Perplexities:
    end = len(losses) + 1
    return Perplexities(
        split_bands(losses, band_width(losses)),
        measure_band(losses, 0, min(trained, end)),
        measure_band(losses, trained, end) if end - trained >= 2 else None,
    )
