"""Kills, errors and races, some of each; `make fuzz` runs hundreds. Planted faults are seen."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ropeconv.kit.replacing import claims, file_set
from tests.fuzz.campaign import make_sources, run_hits, run_races
from tests.fuzz.kills import SUBJECTS, meet, prepare
from tests.fuzz.races import RACES
from tests.fuzz.troubles import Trouble

HITS, RACES_OF_A_PAIR = 5, 2
BY_NAME = {subject.name: subject for subject in SUBJECTS}

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("kills")
    make_sources(folder)
    return folder


@pytest.mark.parametrize("name", BY_NAME)
def test_nothing_is_lost_left_or_said_that_is_not_so(sources: Path, name: str) -> None:
    found = run_hits(sources / name, BY_NAME[name], HITS, "test")
    assert [text for wrong in found for text in wrong] == []


def test_no_error_of_the_system_is_taken_for_no_file(sources: Path) -> None:
    """While it is looked at what lies there: no old part is forgotten beside a new file."""
    ground = prepare(BY_NAME["gguf for splits"], sources / "errors")
    cases = [Trouble("EIO", at, after=True) for at in range(ground.calls // 4)]
    assert [text for case in cases for text in meet(ground, case)] == []


@pytest.mark.parametrize(("first", "second"), RACES)
def test_of_two_writers_one_wins_wholly(sources: Path, first: str, second: str) -> None:
    found = run_races(sources / f"{first} race", first, second, RACES_OF_A_PAIR, "test")
    assert [text for wrong in found for text in wrong] == []


def place_at_once(out: Path, journal: Any) -> None:
    """Renames in order of the parts, over the old ones."""
    for name in journal.names:
        (out.parent / f".{name}.part").rename(out.with_name(name))


@contextlib.contextmanager
def leaving(_path: Path) -> Iterator[None]:
    yield


PLANTED: dict[str, tuple[object, str, Callable[..., Any], str]] = {
    "a mixture of two sets": (file_set, "_place", place_at_once, "SIGKILL"),
    "a file left behind": (claims, "_giving_back", leaving, "EIO"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_faults_are_seen(sources: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ground = prepare(BY_NAME["gguf splits"], sources / name)
    room, function, fault, kind = PLANTED[name]
    monkeypatch.setattr(room, function, fault)
    # the last calls rename and clean up
    cases = (Trouble(kind, at, after=False) for at in reversed(range(ground.calls)))
    assert any(meet(ground, case) for case in cases)


def test_a_name_that_another_run_gave_away_meanwhile_is_claimed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run ends between our `open` and our `flock`: what is open is its output."""
    part, out = tmp_path / ".m.part", tmp_path / "m"
    part.write_text("the other run's")
    lock = fcntl.flock

    def end_and_lock(descriptor: int, how: int) -> None:
        if not out.exists():
            part.rename(out)
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", end_and_lock)
    with claims.claimed(part, out) as descriptor:
        os.ftruncate(descriptor, 0)
    assert out.read_text() == "the other run's"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
