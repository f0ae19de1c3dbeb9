"""How the program starts and stops: from any folder, beside any package, by any polite signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoints import save_checkpoint

ROOT = Path(__file__).parent.parent
HIDING = "raise SystemExit('imported from the current folder')\n"
TARGETS = "from ropeconv.registry import targets; print(*sorted(targets()))"
OURS = " ".join(sorted(path.name.removeprefix("to_") for path in ROOT.glob("converters/to_*")))
WAITING = """
import time
import click
from ropeconv import cli

def wait():
    print("ready", flush=True)
    time.sleep(60)

cli.Commands.get_command = lambda self, ctx, name: click.Command(name, callback=wait)
cli.main(["wait"])
"""


def python(
    folder: Path, *arguments: str, path: tuple[Path, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in `folder`, with `path` before the checkout on PYTHONPATH."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def write(folder: Path, **files: str) -> Path:
    """`converters_init="..."` makes converters/__init__.py, any other stem a file of its own."""
    places = {"converters_init": "converters/__init__.py", "to_mine": "converters/to_mine.py"}
    for stem, text in files.items():
        path = folder / places.get(stem, f"{stem}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.torch
@pytest.mark.parametrize(
    "files",
    [
        {"to_mine": HIDING},
        {"converters_init": HIDING, "to_mine": HIDING},
        {"converters": HIDING, "onnx": HIDING, "numpy": HIDING, "gguf": HIDING},
    ],
    ids=["namespace", "package", "modules"],
)
def test_python_m_imports_nothing_from_the_current_folder(
    files: dict[str, str], tmp_path: Path
) -> None:
    source = save_checkpoint(tmp_path / "model", "llama", context=256)
    write(tmp_path, **files)
    arguments = ("gguf", source.name, "--pi-factor", "4", "--type", "F16", "-o", "out.gguf")
    done = python(tmp_path, "-m", "ropeconv", *arguments)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.gguf").is_file()


@pytest.mark.parametrize("files", [{"to_mine": HIDING}, {"converters_init": "", "to_mine": HIDING}])
def test_a_program_s_own_converters_are_no_targets(files: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, program=TARGETS, **files)
    for arguments in (("-c", TARGETS), ("program.py",)):
        done = python(tmp_path, *arguments)
        assert (done.returncode, done.stdout.strip()) == (0, OURS), done.stderr


@pytest.mark.parametrize("first", ["import converters", "import ropeconv"])
def test_a_program_keeps_its_own_converters(first: str, tmp_path: Path) -> None:
    program = f"{first}\n{TARGETS}\nfrom converters import NAME, to_mine\nprint(NAME, to_mine.NAME)"
    write(tmp_path, program=program, converters_init="NAME = 'own'", to_mine="NAME = 'mine'")
    done = python(tmp_path, "program.py")
    assert (done.returncode, done.stdout.splitlines()) == (0, [OURS, "own mine"]), done.stderr


def test_a_package_that_hides_the_targets_is_named(tmp_path: Path) -> None:
    broken = write(tmp_path / "broken", converters_init="raise ImportError('no such\\nthing')")
    (tmp_path / "empty.gguf").touch()
    done = python(tmp_path, "-m", "ropeconv", "inspect", "empty.gguf", path=(broken,))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line == (
        f"ropeconv: {broken}/converters/__init__.py: ropeconv's targets lie in a package "
        "'converters', and this one of the same name cannot be imported (ImportError: no such "
        "thing); rename it or take it off PYTHONPATH"
    )


def test_a_portion_that_is_installed_is_found(tmp_path: Path) -> None:
    """As a distribution's would be, by an entry of the path; the current folder or not."""
    code = (
        "from ropeconv.kit.namespaces import namespace_paths; print(*namespace_paths('converters'))"
    )
    write(tmp_path / "plugin", to_mine="")
    for folder in (tmp_path, tmp_path / "plugin"):
        done = python(folder, "-P", "-c", code, path=(tmp_path / "plugin",))
        assert done.stdout.split() == [f"{ROOT}/converters", f"{tmp_path}/plugin/converters"]


def waiting(tmp_path: Path, number: signal.Signals, *, ignored: bool) -> subprocess.Popen[str]:
    """A command that waits; with `number` ignored from the start, as `nohup` does for SIGHUP."""
    disposition = "SIG_IGN" if ignored else "SIG_DFL"  # these tests may run under nohup themselves
    before = f"import signal; signal.signal(signal.SIGHUP, signal.{disposition})\n"
    process = subprocess.Popen(
        [sys.executable, "-c", before + WAITING],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_polite_signal_is_an_interrupt(number: signal.Signals, tmp_path: Path) -> None:
    process = waiting(tmp_path, number, ignored=False)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert errors.strip() == "ropeconv: interrupted; the previous output, if any, is as it was"


def test_nohup_keeps_its_meaning(tmp_path: Path) -> None:
    process = waiting(tmp_path, signal.SIGHUP, ignored=True)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 2


def test_windows_is_told_in_one_line(tmp_path: Path) -> None:
    code = "import os; from ropeconv import cli; os.name = 'nt'; cli.main(['--help'])"
    done = python(tmp_path, "-c", code)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "ropeconv: runs on Linux and macOS, whose calls it writes files with; on Windows use WSL\n"
    )


def test_help_reads_no_metadata_of_distributions(tmp_path: Path) -> None:
    code = (
        "import sys; from ropeconv.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print('importlib.metadata' in sys.modules)"
    )
    assert python(tmp_path, "-c", code, "gguf", "--help").stdout.splitlines()[-1] == "False"
    assert python(tmp_path, "-c", code, "--version").stdout.splitlines()[-1] == "True"
