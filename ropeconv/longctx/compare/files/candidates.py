"""The files that are compared: opened, and held to be files of one model under one scaling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ropeconv import registry
from ropeconv.artefact import Artefact
from ropeconv.errors import CheckpointError, ConfigError
from ropeconv.longctx.compare.files.question import FilesQuestion
from ropeconv.proof.frequencies import compare_frequencies
from ropeconv.proof.reference.layerwise import LayerwiseReference
from ropeconv.proof.run import models_in, open_any
from ropeconv.proof.structure import Expected, find_expected, structure_findings
from ropeconv.rope.spec import Rope


@dataclass(frozen=True)
class Candidate:
    """One file. label: its name, its path where another has that name; files: all that its runtime
    loads; expected: what it says that it should be.
    """

    label: str
    path: Path
    artefact: Artefact
    files: Sequence[Path]
    expected: Expected

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.stat().st_size for file in self.files)


def open_candidates(paths: Sequence[Path], question: FilesQuestion) -> list[Candidate]:
    """The files, of a folder of several types each; ConfigError in one line where one is no file of
    the first one's model and scaling.

    CheckpointError for what is no finished file, or damaged.
    """
    paths = [model for path in paths for model in models_in(path)]
    _refuse_twins(paths)
    found = [_open(path, _label(path, paths), question) for path in paths]
    first = found[0]
    for other in found[1:]:
        _check_same(other, first)
    return found


def _refuse_twins(paths: Sequence[Path]) -> None:
    if not paths:
        raise ConfigError("there is nothing to compare; give finished files")
    places = [path.resolve() for path in paths]
    twice = next(
        (p for p, place in zip(paths, places, strict=True) if places.count(place) > 1), None
    )
    if twice is not None:
        raise ConfigError(f"{twice} is there twice; give it once")


def _label(path: Path, paths: Sequence[Path]) -> str:
    return path.name if [other.name for other in paths].count(path.name) == 1 else str(path)


def _open(path: Path, label: str, question: FilesQuestion) -> Candidate:
    targets = registry.targets().values()
    if any(target.write_folder is not None and target.recognizes(path) for target in targets):
        raise ConfigError(
            f"{path}: a checkpoint has no runtime of its own, and --types compares files that have "
            f"one; leave it out"
        )
    target, artefact = open_any(path)
    expected = find_expected(
        artefact,
        reference=question.reference,
        request=None,
        original_context=question.original_context,
        base=question.base,
    )
    findings = structure_findings(artefact, expected, target=target)
    wrong = [*findings.blocking, *findings.others]
    if wrong:
        raise CheckpointError(f"{path}: {wrong[0]}; see ropeconv verify, or leave it out")
    return Candidate(label, path, artefact, artefact.files or _all_files(path), expected)


def _all_files(path: Path) -> list[Path]:
    """What an artefact that does not say it is taken to consist of."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _check_same(one: Candidate, first: Candidate) -> None:
    """ConfigError where the two are no files of one model under one scaling."""
    mine, theirs = (c.expected.model.checkpoint.fingerprint for c in (one, first))
    if mine != theirs:
        raise ConfigError(
            f"{one.path}: made from another checkpoint than {first.path} ({mine[:12]}, not "
            f"{theirs[:12]}), so it is no file of that model; leave one of them out"
        )
    if one.expected.model.ropes != first.expected.model.ropes:
        own, other = (_words(c.expected.rope) for c in (one, first))
        raise ConfigError(
            f"{one.path}: carries another scaling than {first.path} ({own}, not {other}), so it is "
            f"no file of that model; leave one of them out"
        )


def _words(rope: Rope) -> str:
    return f"{rope.kind} {rope.original_context} -> {rope.context}"


def check_frequencies(candidates: Sequence[Candidate], reference: LayerwiseReference) -> None:
    """ConfigError for a file whose runtime rotates otherwise than transformers does."""
    rotary = reference.frequencies()
    for one in candidates:
        found = compare_frequencies(one.artefact.frequencies, rotary).findings
        if found:
            raise ConfigError(
                f"{one.path}: carries another scaling than it should ({found[0]}); leave it out"
            )
