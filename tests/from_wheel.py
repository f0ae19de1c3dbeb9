"""The built wheel in an environment of its own, used as a stranger would: `make wheel`.

usage: python -m tests.from_wheel ENVIRONMENT WORK

Makes a tiny checkpoint with this checkout's Python. Everything else is done by the commands in
ENVIRONMENT, in a folder outside of the checkout that holds a `converters` package, an onnx.py and a
numpy.py of its own, which must stay untouched. AssertionError, or the command's own, when not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.checkpoints import save_checkpoint

CONVERSIONS = {
    "gguf": ("model.gguf", "--type", "F16"),
    "onnx": ("model-onnx", "--type", "int8"),
    "safetensors": ("model-x4",),
}
FACTS = """
import importlib.metadata, pathlib, ropeconv
print(importlib.metadata.version("ropeconv") == ropeconv.__version__)
print(importlib.metadata.metadata("ropeconv")["License-Expression"])
print(pathlib.Path(ropeconv.__file__).with_name("py.typed").is_file())
print(sorted(file.name for file in importlib.metadata.files("ropeconv") if file.name == "LICENSE"))
print(ropeconv.__file__)
"""


def run(command: tuple[str, ...], folder: Path) -> str:
    """stdout of a command in `folder`, without this checkout's environment; it must succeed."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)} exited {done.returncode}\n{done.stderr}"
    return done.stdout


def foreign_folder(folder: Path) -> Path:
    """A folder whose names hide ropeconv's and its libraries', if they are found."""
    package = folder / "converters"
    package.mkdir(parents=True)
    for file in (package / "__init__.py", folder / "onnx.py", folder / "numpy.py"):
        file.write_text("raise SystemExit('a file of the current folder was imported')\n")
    return folder


def check_facts(python: Path, folder: Path) -> None:
    """What an installer and a type checker read."""
    *facts, home = run((str(python), "-P", "-c", FACTS), folder).splitlines()
    assert facts == ["True", "Apache-2.0", "True", "['LICENSE']"], facts
    assert Path(home).is_relative_to(python.parent.parent), f"{home} is not the wheel's"


def check_conversions(binaries: Path, folder: Path) -> None:
    """Every target by script and by `python -m`; what was written is looked at and proven."""
    starts = {
        "script": (str(binaries / "ropeconv"),),
        "module": (str(binaries / "python"), "-m", "ropeconv"),
    }
    for way, start in starts.items():
        for target, (name, *options) in CONVERSIONS.items():
            out = f"{way}-{name}"
            run((*start, target, "model", "--pi-factor", "4", *options, "-o", out), folder)
            run((*start, "inspect", out, "--json"), folder)
            print(f"{way}: {out}")
    run((*starts["script"], "verify", "module-model-x4", "--tokens", "300"), folder)
    print("verified: module-model-x4")


def main(environment: Path, work: Path) -> None:
    """Check it all."""
    folder = foreign_folder(work)
    save_checkpoint(folder / "model", "llama", context=256)
    check_facts(environment / "bin" / "python", folder)
    check_conversions(environment / "bin", folder)


if __name__ == "__main__":
    main(*(Path(argument).absolute() for argument in sys.argv[1:]))
