"""Toys of every kind that can be dropped in, and a way to run a command with them in their rooms.

Each is one file (a target: one folder), written as a stranger to the project would write it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# Runs in a process of its own: nothing that is dropped in stays behind.
RUN = """
import importlib, sys
for room, folder in {rooms!r}:
    importlib.import_module(room).__path__.append(folder)
from ropeconv.cli import main
main(sys.argv[1:])
"""

FAMILY = '''
"""A llama whose config says model_type "toy"."""

from dataclasses import replace

from ropeconv.arch.families.llama import ARCH as LLAMA

ARCH = replace(LLAMA, name="toy", classes=("ToyForCausalLM",))
'''

GGUF_ARCH = '''
"""How llama.cpp's `llama` runs it."""

from dataclasses import replace

from converters.to_gguf.archs.llama import ARCH as LLAMA

ARCH = replace(LLAMA, name="toy", families=("toy",))
'''

WEIGHT_TYPE = '''
"""4 bits in blocks of 64, the head in 8."""

from converters.to_onnx.quant._types import BYTES, Blocks, WeightType
from ropeconv.gates import Gates

WIDE = Blocks(4, 64, symmetric=False)
TYPE = WeightType(
    "toy4",
    "float32",
    gates=Gates(0.5, 0.5, 0.2, 0.5),
    linear=WIDE,
    embedding=WIDE,
    head=BYTES,
    accuracy_level=4,
)
'''

STATIC_KIND = '''
"""Every pair divided by the square root of the factor."""

from dataclasses import dataclass

from ropeconv.rope.scalings import _common
from ropeconv.rope.spec import ScalingKind


@dataclass(frozen=True)
class RootParameters:
    factor: float


def _solve(rope):
    base = _common.base_frequencies(rope)
    return _common.scaled(rope, base / rope.parameters.factor**0.5)


def _huggingface(rope):
    return {**_common.header(rope, "linear"), "factor": rope.parameters.factor**0.5}


SCALING = ScalingKind(
    name="root",
    rope_types=(),
    parameters=RootParameters,
    solve=_solve,
    huggingface=_huggingface,
    by_factor=_common.by_factor_of("root"),
    static=True,
    source="none",
)
'''

RUNNING_KIND = (
    STATIC_KIND.replace('name="root"', 'name="running"')
    .replace('by_factor_of("root")', 'by_factor_of("running")')
    .replace("static=True", "static=False")
)

TARGET = '''
"""A target that writes the frequencies as text, and reads nothing back."""

from dataclasses import dataclass
from pathlib import Path

from ropeconv.errors import CannotExpress
from ropeconv.finding import NOTE, Finding
from ropeconv.gates import Gates
from ropeconv.kit.options import option
from ropeconv.target import Carried, Emitted, Manual, Options


@dataclass(frozen=True)
class ToyOptions(Options):
    digits: int = option(6, minimum=1, metavar="N", help="Digits of a frequency.")


class Toy:
    name = "toy"
    manual = Manual("Write frequencies as text.", "Write SOURCE's frequencies.", "FILE",
                    "The file to make.", True, False)
    options = ToyOptions
    runtimes = ("toy runtime",)
    providers = ()
    cures = frozenset()
    block_limits = {}
    reader = None
    write_folder = None
    importance = None

    def recognizes(self, path):
        return Path(path).suffix == ".toy"

    def artefacts(self, path):
        return [path]

    def carry(self, model, bake):
        if model.main_rope.kind == "llama3":
            raise CannotExpress("a toy has no llama3; take yarn")
        return Carried("tables", "one line a pair")

    def emit(self, model, out, *, options, progress=None):
        carried = self.carry(model, options.bake)
        lines = [f"{value:.{options.digits}g}" for value in model.main_frequencies.inv_freq]
        text = "\\n".join(lines)
        if not options.dry_run:
            Path(out).write_text(text)
        return Emitted((Path(out),), len(text), carried, "text")

    def open_artefact(self, path, *, provider=None):
        raise CannotExpress("a toy is not read back")

    def gates(self, file_type, stack):
        return Gates(1.0, 1.0, 0.0, 1.0)

    def traps(self, case):
        what = f"a {case.name} in a toy"
        return [Finding("X1", NOTE, what, {"toy runtime": "plays with it"}, "play along")]


TARGET = Toy()
'''


def run(
    arguments: list[str], *, rooms: dict[str, Path] | None = None
) -> subprocess.CompletedProcess[str]:
    """`ropeconv ARGUMENTS` with folders of further modules in rooms: package -> folder."""
    code = RUN.format(rooms=[(room, str(folder)) for room, folder in (rooms or {}).items()])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
