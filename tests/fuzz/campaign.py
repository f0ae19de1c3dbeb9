"""`python -m tests.fuzz.campaign`: kills, errors and races of every target. Exit 1 when one of them
found what must not be.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import click

from tests.checkpoints import save_checkpoint
from tests.fuzz.kills import SUBJECTS, Subject, finish, hit, prepare
from tests.fuzz.races import RACES, race


def run_hits(folder: Path, subject: Subject, count: int, seed: str) -> Iterator[list[str]]:
    """What is wrong in each of `count` cases."""
    ground = prepare(subject, folder)
    for number in range(count):
        yield hit(ground, Random(f"{seed}:{subject.name}:{number}"))


def run_races(folder: Path, first: str, second: str, count: int, seed: str) -> Iterator[list[str]]:
    """What is wrong in each of `count` races."""
    by_name = {subject.name: subject for subject in SUBJECTS}
    ground = prepare(by_name[first], folder)
    for number in range(count):
        yield race(ground, by_name[second], Random(f"{seed}:{first}:{number}"))


def make_sources(folder: Path) -> None:
    """Two models of the same shapes in the empty `folder`; and every module that a command needs,
    loaded before a fork.
    """
    for number, source in enumerate("ab"):
        _in_child(partial(_save, folder / source, number))
    for subject in {subject.target: subject for subject in SUBJECTS}.values():
        (folder / "place" / "place").mkdir(parents=True, exist_ok=True)
        command = subject.command(folder / "place", "a", subject.options)
        _in_child(partial(_list_modules, command, folder / "modules"))
        for name in (folder / "modules").read_text().split():
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    shutil.rmtree(folder / "place")


def _save(folder: Path, seed: int) -> None:
    save_checkpoint(folder, "llama", context=256, seed=seed)


def _list_modules(command: list[str], out: Path) -> None:
    from ropeconv.cli import main as ropeconv

    with contextlib.suppress(SystemExit):
        ropeconv([*command, "--dry-run", "--json"])
    out.write_text(" ".join(sys.modules))


def _in_child(work: Callable[[], None]) -> None:
    """So that no thread of a library's lives in this process, which forks."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            work()
            status = 0
        finally:
            os._exit(status)
    assert finish(process) == 0


def main() -> int:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.kills")
    parser.add_argument("-n", type=int, default=200, help="kills and errors for each target")
    parser.add_argument("--races", type=int, default=40, help="in all")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--target")
    chosen = parser.parse_args()
    wrong: list[str] = []
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_sources(root)
        for target in dict.fromkeys(subject.target for subject in SUBJECTS):
            own = [subject for subject in SUBJECTS if subject.target == target]
            for subject in own if chosen.target in (None, target) else ():
                each = -(-chosen.n // len(own))
                for found in run_hits(root / subject.name, subject, each, chosen.seed):
                    counts[f"kills and errors, {target}"] += 1
                    wrong += _told(found)
        for first, second in RACES if chosen.target is None else ():
            each = -(-chosen.races // len(RACES))
            for found in run_races(root / f"{first} race", first, second, each, chosen.seed):
                counts["races"] += 1
                wrong += _told(found)
    click.echo(", ".join(f"{count} {name}" for name, count in counts.items()))
    click.echo(f"{len(wrong)} wrong")
    return 1 if wrong else 0


def _told(found: list[str]) -> list[str]:
    for text in found:
        click.echo(text)
    return found


if __name__ == "__main__":
    sys.exit(main())
