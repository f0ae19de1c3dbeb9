"""Commands that are killed, interrupted, or met by errors of the system, and what they leave.

Every case is a real process and a real output: nothing lost, nothing left after the next run,
nothing said that is not so.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz.troubles import KINDS, SIGNALS, UNHEARD, Trouble, run_command

State = Mapping[str, str]
"""File under the place -> digest of its content."""
INTERRUPTED = "ropeconv: interrupted; the previous output, if any, is as it was"
UNTOUCHED = ("not written", "nothing is written")
SPLIT = ("--split-max-size", "200000")


@dataclass(frozen=True)
class Subject:
    """A way to write an output. before: how the old one was written; None: there is none."""

    name: str
    target: str
    out: str
    options: Sequence[str] = ()
    before: Sequence[str] | None = ()

    def command(self, root: Path, source: str, options: Sequence[str]) -> list[str]:
        """What writes the output of the source `source`."""
        force = [] if self.before is None else ["--force"]
        out = str(root / "place" / self.out)
        return [self.target, str(root.parent / source), "-o", out, "--quiet", *options, *force]


SUBJECTS = (
    Subject("gguf", "gguf", "m.gguf"),
    Subject("gguf anew", "gguf", "m.gguf", before=None),
    Subject("gguf splits", "gguf", "m.gguf", SPLIT, before=SPLIT),
    Subject("gguf splits anew", "gguf", "m.gguf", SPLIT, before=None),
    Subject("gguf for splits", "gguf", "m.gguf", before=SPLIT),
    Subject("gguf splits for a whole", "gguf", "m.gguf", SPLIT),
    Subject("gguf with a Modelfile", "gguf", "m.gguf", ("--modelfile",), before=("--modelfile",)),
    Subject("safetensors", "safetensors", "m", ("--dtype", "F16")),
    Subject("safetensors copied", "safetensors", "m"),
    Subject("safetensors anew", "safetensors", "m", before=None),
    Subject("onnx", "onnx", "m"),
    Subject("onnx anew", "onnx", "m", before=None),
)


@dataclass
class Ground:
    """A subject with its old output, which is copied into place for each case, and what it is to
    be. calls: system calls that the command makes. seconds: that it takes.
    """

    subject: Subject
    root: Path
    old: State = field(default_factory=dict)
    new: State = field(default_factory=dict)
    calls: int = 0
    seconds: float = 0.0

    @property
    def place(self) -> Path:
        """The folder of the output."""
        return self.root / "place"

    def lay(self) -> None:
        """The old output alone."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.root / "old", self.place)

    def run(self, trouble: Trouble | None = None, source: str = "b") -> int:
        """The process of the command."""
        command = self.subject.command(self.root, source, self.subject.options)
        return run_command(command, self.root / "told", trouble)

    def told(self) -> list[str]:
        """Lines that the last command printed to stderr, but for its advice."""
        lines = (self.root / "told").read_text().strip().splitlines()
        return [line for line in lines if line and not line.startswith("prove it: ")]


def state(place: Path) -> dict[str, str]:
    """Every file and hidden folder there."""
    return {
        str(path.relative_to(place)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    } | {f"{path.name}/": "" for path in place.glob(".*") if path.is_dir()}


def prepare(subject: Subject, root: Path) -> Ground:
    """Its old output and its new one, made in the new folder `root` beside the sources."""
    ground = Ground(subject, root)
    root.mkdir()
    ground.place.mkdir()
    if subject.before is not None:
        finish(run_command(subject.command(root, "a", subject.before), root / "told"))
        ground.old = state(ground.place)
    ground.place.rename(root / "old")
    ground.lay()
    begun = time.monotonic()
    assert finish(ground.run()) == 0, ground.told()
    ground.seconds = time.monotonic() - begun
    ground.calls = int((root / "told.calls").read_text())
    ground.new = state(ground.place)
    assert not [name for name in ground.new if name.startswith(".")]
    return ground


def finish(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def hit(ground: Ground, rng: Random) -> list[str]:
    """What is wrong after one case: trouble at a system call, a signal at a random time, or a kill
    in what a killed run left.
    """
    chosen = rng.random()
    if chosen < 0.7:
        return meet(ground, _choose(ground, rng, rng.choice(KINDS)))
    ground.lay()
    if chosen < 0.8:
        first, second = (_choose(ground, rng, "SIGKILL") for _ in range(2))
        finish(ground.run(first))
        return _judge(ground, finish(ground.run(second)), f"{first}, then {second}")
    name, seconds = rng.choice(list(SIGNALS)), rng.random() * ground.seconds * 1.1
    process = ground.run()
    time.sleep(seconds)
    os.kill(process, SIGNALS[name])
    return _judge(ground, finish(process), f"{name} after {seconds:.3f} s")


def _choose(ground: Ground, rng: Random, kind: str) -> Trouble:
    return Trouble(kind, rng.randrange(ground.calls), rng.random() < 0.5)


def meet(ground: Ground, trouble: Trouble) -> list[str]:
    """What is wrong after a command that met the trouble, and after the next one."""
    ground.lay()
    return _judge(ground, finish(ground.run(trouble)), str(trouble))


def _judge(ground: Ground, code: int, case: str) -> list[str]:
    wrong = list(_after_kill(ground) if code == -signal.SIGKILL else _after_end(ground, code, case))
    return [f"{ground.subject.name}, {case}: {text}" for text in [*wrong, *_next_run(ground)]]


def _after_end(ground: Ground, code: int, case: str) -> Iterator[str]:
    """A command that ended by itself has said what is so, and left nothing."""
    found, told = state(ground.place), ground.told()
    if (code < 0 or code == UNHEARD) and not told and found == ground.old:
        return  # before the command heard signals
    if code == 2 and found == ground.new and "exists; pass --force" in "".join(told):
        return  # after a killed one that was complete
    if code == 0:
        if found != ground.new or told:
            yield f"exit 0, told {told}, {describe(ground, found)}"
        return
    if code != 2 or len(told) != 1:
        yield f"exit {code}, told {told}"
    elif told[0] == INTERRUPTED or any(said in told[0] for said in UNTOUCHED):
        if found != ground.old:
            yield f"{told[0]!r}, but {describe(ground, found)}"
    elif "is written and complete" in told[0]:
        if found != ground.new:
            yield f"{told[0]!r}, but {describe(ground, found)}"
    else:
        yield f"told {told} of {case}"


def _after_kill(ground: Ground) -> Iterator[str]:
    """What has a name is whole: the old output, the new one, or a set that lacks its first."""
    found = state(ground.place)
    seen = {name: digest for name, digest in found.items() if not name.startswith(".")}
    if any(_is_whole(seen, some) for some in (ground.old, ground.new)):
        return
    names = {*ground.old, *ground.new}
    strange = [n for n, d in seen.items() if d not in (ground.old.get(n), ground.new.get(n))]
    firsts = [name for name in names if "-00001-of-" in name]
    if "m.Modelfile" in names:
        firsts.append("m.gguf")
    if strange or not firsts or any(first in seen for first in firsts):
        yield f"killed: {describe(ground, found)}"


def _is_whole(seen: State, some: State) -> bool:
    return dict(seen) == dict(some) or (some != {} and some.items() <= seen.items())


def _next_run(ground: Ground) -> Iterator[str]:
    """The same command once more: it writes, or finds that the killed one had written."""
    was_new = state(ground.place) == ground.new
    code = finish(ground.run())
    found, told = state(ground.place), ground.told()
    refused = code == 2 and "exists; pass --force" in "".join(told)
    if found != ground.new or not (code == 0 or (refused and ground.subject.before is None)):
        yield f"then exit {code}, {told}, {was_new}, {describe(ground, found)}"


def describe(ground: Ground, found: State) -> str:
    if found == ground.old:
        return "the old output"
    if found == ground.new:
        return "the new output"
    return ", ".join(f"{file} {_age(ground, file, digest)}" for file, digest in found.items())


def _age(ground: Ground, file: str, digest: str) -> str:
    if digest == ground.new.get(file):
        return "new"
    return "old" if digest == ground.old.get(file) else "?"
