"""How a command ends on an input: accepted, refused in one line, or a finding."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import click

from ropeconv.errors import RopeconvError
from tests.fuzz.mutations import Mutation, apply, propose
from tests.fuzz.seeds import ARTEFACT, SETTINGS, SOURCE, SUBJECTS, TENSORS, Subject

ACCEPTED = "accepted"
REFUSED = "refused"
HERE = f"{Path(__file__).resolve().parents[2]}/"
ROOMS = ("/ropeconv/", "/converters/")
VERIFIED = 0.03  # of the artefacts are run to the end, a second and more each
LONGEST = 1600


@dataclass(frozen=True)
class Case:
    """An input and how it is spoiled: (file inside the subject, mutation), one after another."""

    subject: Subject
    changes: Sequence[tuple[str, Mutation]]


def make_case(root: Path, seed: str, subject: Subject | None = None) -> tuple[Case, Random]:
    """The case of a seed, and the generator that chose it, for what is done with it."""
    rng = Random(seed)
    if subject is None:
        subject = rng.choices(SUBJECTS, [one.weight for one in SUBJECTS])[0]
    base = root / subject.name
    changes: list[tuple[str, Mutation]] = []
    spoiled: dict[str, bytes] = {}
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name = rng.choice(subject.files or _files(base))
        path = base / name if name else base
        if not path.exists():
            continue
        data = spoiled.get(name) or path.read_bytes()
        mutation = propose(rng, path.name, data)
        spoiled[name] = apply(mutation, data)
        changes.append((name, mutation))
    return Case(subject, changes), rng


def _files(base: Path) -> list[str]:
    """Names of the subject's files; "" for itself where it is one."""
    if base.is_file():
        return [""]
    return sorted(str(file.relative_to(base)) for file in base.rglob("*") if file.is_file())


def lay_out(root: Path, case: Case, place: Path) -> Path:
    """The spoiled input in the empty folder `place`, beside the source that it names."""
    base, target = root / case.subject.name, place / "in" / case.subject.name
    for name in _files(base):
        file = target / name if name else target
        file.parent.mkdir(parents=True, exist_ok=True)
        os.link(base / name if name else base, file)
    for name, mutation in case.changes:
        file = target / name if name else target
        if file.is_file():
            data = apply(mutation, file.read_bytes())
            file.unlink()
            file.write_bytes(data)
    for name in {"llama", "plain"} - {case.subject.name}:
        (target.parent / name).symlink_to(root / name)
    return target


def try_case(root: Path, case: Case, rng: Random, place: Path) -> str:
    """ACCEPTED, REFUSED (by one command at least), or what is wrong."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    target = lay_out(root, case, place)
    ends = [_end(command) for command in commands(case.subject, target, place, rng)]
    wrong = [end for end in ends if end not in (ACCEPTED, REFUSED)]
    if wrong:
        return wrong[0]
    left = [entry.name for entry in place.iterdir() if "part" in entry.name]
    if left:
        return f"{left[0]} is left behind"
    return REFUSED if REFUSED in ends else ACCEPTED


def commands(subject: Subject, target: Path, place: Path, rng: Random) -> Iterable[Sequence[str]]:
    """What is done with the input: looked at, converted to one target, or proven."""
    scales = subject.scales and subject.use == SOURCE
    shown = rng.choice(([], ["--json"], ["--yarn-factor", "2"] if scales else []))
    inspect = ["inspect", str(target), *shown]
    kind = rng.choice(subject.targets)
    scaled = rng.choice(([], ["--pi-factor", "2"], ["--yarn-factor", "4"]))
    scaled = scaled if scales else []
    convert = [kind, "-o", str(place / f"out.{kind}"), "--quiet"]
    if subject.use == TENSORS:
        return [["tensors", str(target)]]
    if subject.base:
        base = ["--base", str(target.parent / "plain")]
        return [[*inspect, *base], [*convert, str(target), *scaled, *base]]
    if subject.use == SETTINGS:
        return [[*convert, str(target.parent / "plain"), "--rope-parameters", str(target)]]
    if subject.use == ARTEFACT:
        if rng.random() < VERIFIED:
            return [["verify", str(target), "--tokens", "16", "--quiet"]]
        return [inspect, ["read", str(target)]]
    return [inspect, [*convert, str(target), *scaled]]


def _end(arguments: Sequence[str]) -> str:
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            _run(arguments)
    except (RopeconvError, click.ClickException) as error:
        text = str(error)
        if "\n" in text or len(text) > LONGEST or not text:
            return f"a message of {len(text)} characters, {text.count(chr(10))} lines"
        return REFUSED
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is a finding
        return f"{type(error).__name__} at {_place(error)}: {' '.join(str(error).split())[:200]}"
    return ACCEPTED


def _run(arguments: Sequence[str]) -> None:
    from ropeconv.cli import group

    if arguments[0] == "read":
        read_artefact(Path(arguments[1]))
    elif arguments[0] == "tensors":
        read_tensors(Path(arguments[1]))
    else:
        group.main(list(arguments), prog_name="ropeconv", standalone_mode=False)


def read_tensors(path: Path) -> None:
    """Every number of a checkpoint, whatever its family."""
    from ropeconv.kit.slabs import cut
    from ropeconv.sources.folder import open_checkpoint

    checkpoint = open_checkpoint(path)
    for tensor in checkpoint.tensors.values():
        for start, stop in cut(tensor.shape):
            tensor.rows(start, stop)
    assert checkpoint.fingerprint


def read_artefact(path: Path) -> None:
    """What `verify` reads of an artefact before a network is run."""
    from ropeconv.proof.run import open_any
    from ropeconv.proof.rungs import weight_rung
    from ropeconv.proof.structure import find_expected, structure_findings

    target, artefact = open_any(path)
    expected = find_expected(artefact, reference=None, request=None)
    findings = structure_findings(artefact, expected, target=target)
    if findings.blocking:
        return
    artefact.vocabulary()
    artefact.tokenize("a text of words <|im_end|>")
    for further in (artefact.token_kinds, artefact.ends, artefact.merges):
        if further is not None:
            further()
    weight_rung(target, artefact, expected, None)


def _place(error: BaseException) -> str:
    """Where in ropeconv's own code, innermost."""
    own = [
        f"{frame.filename.removeprefix(HERE)}:{frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if any(room in frame.filename for room in ROOMS) and "site-packages" not in frame.filename
    ]
    return own[-1] if own else "?"
