"""Spoiled inputs: what was found before, and some hundred new ones. `make fuzz` runs many more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.endings import ACCEPTED, REFUSED, Case, make_case, try_case
from tests.fuzz.pool import prepare, run_made
from tests.fuzz.seeds import SUBJECTS

CORPUS = Path(__file__).parent / "corpus" / "found.jsonl"
CASES = 500
BY_NAME = {subject.name: subject for subject in SUBJECTS}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("fuzz")
    prepare(folder)
    return folder


def sound_case(_root: Path, name: str) -> tuple[Case, Random]:
    subject, _, number = name.partition(" ")
    return Case(BY_NAME[subject], ()), Random(number)


def found_case(_root: Path, name: str) -> tuple[Case, Random]:
    line = CORPUS.read_text().splitlines()[int(name)]
    said = json.loads(line)
    return Case(BY_NAME[said["subject"]], said["changes"]), Random(name)


def wrong_ends(ends: Iterator[tuple[str, str]], *good: str) -> list[tuple[str, str]]:
    return [(name, end) for name, end in ends if end not in good]


@pytest.mark.llama
@pytest.mark.torch
def test_sound_inputs_are_accepted(root: Path) -> None:
    names = [f"{subject.name} {number}" for subject in SUBJECTS for number in range(2)]
    assert wrong_ends(run_made(root, names, sound_case), ACCEPTED) == []


@pytest.mark.llama
@pytest.mark.torch
def test_what_was_found_ends_in_one_line(root: Path) -> None:
    names = [str(number) for number in range(len(CORPUS.read_text().splitlines()))]
    assert names
    assert wrong_ends(run_made(root, names, found_case), ACCEPTED, REFUSED) == []


@pytest.mark.llama
@pytest.mark.torch
def test_spoiled_inputs_end_in_one_line(root: Path) -> None:
    names = [f"test:{number}" for number in range(CASES)]
    assert wrong_ends(run_made(root, names, make_case), ACCEPTED, REFUSED) == []


def test_a_reader_that_falls_over_is_a_finding(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ropeconv.kit import door

    def fall_over(_path: Path, _data: bytes) -> None:
        raise KeyError("planted")

    monkeypatch.setattr(door, "_check_text", fall_over)
    case, rng = sound_case(root, "plain 0")
    end = try_case(root / "seeds", case, rng, tmp_path / "case")
    assert end.startswith("KeyError at ropeconv/kit/door.py:read_file: 'planted'")
