"""Two commands that write one name at the same time: one wins wholly, the other is refused, or
comes after it.
"""

from __future__ import annotations

import time
from random import Random

from tests.fuzz.kills import Ground, Subject, describe, finish, state
from tests.fuzz.troubles import run_command

RACES = (
    ("gguf", "gguf"),
    ("gguf anew", "gguf anew"),
    ("gguf splits", "gguf splits"),
    ("gguf splits anew", "gguf splits anew"),
    ("gguf for splits", "gguf splits"),
    ("safetensors", "safetensors"),
    ("safetensors anew", "safetensors anew"),
    ("onnx", "onnx"),
)


def race(ground: Ground, other: Subject, rng: Random) -> list[str]:
    """What is wrong after two commands, of the sources b and a, wrote one name at once."""
    commands = [
        one.command(ground.root, source, one.options)
        for one, source in ((ground.subject, "b"), (other, "a"))
    ]
    alone = []
    for command in commands:
        ground.lay()
        finish(run_command(command, ground.root / "told"))
        alone.append(state(ground.place))
    ground.lay()
    told = [ground.root / f"told {number}" for number in range(2)]
    processes = []
    for command, path in zip(commands, told, strict=True):
        processes.append(run_command(command, path))
        time.sleep(rng.choice((0, 0, rng.random() * ground.seconds)))
    codes = [finish(process) for process in processes]
    said = [path.read_text().strip() for path in told]
    found = state(ground.place)
    wrong = []
    if found not in [one for one, code in zip(alone, codes, strict=True) if code == 0]:
        wrong.append(f"exits {codes}, told {said}, {describe(ground, found)}")
    for code, text in zip(codes, said, strict=True):
        lost = "another process is writing it" in text or "exists; pass --force" in text
        if (code, lost) not in ((0, False), (2, True)) or "\n" in text:
            wrong.append(f"exit {code}, told {text!r}")
    return [f"{ground.subject.name} against {other.name}: {text}" for text in wrong]
