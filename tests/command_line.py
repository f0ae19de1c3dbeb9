"""Commands run as a user types them: in this process, or in one of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from ropeconv.cli import main


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command prints to stderr; it exits 2 and prints nothing on stdout."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        main(arguments)
    captured = capsys.readouterr()
    assert done.value.code == 2, captured.err
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("ropeconv: ")
    return lines[0]


def run(
    arguments: list[str], capsys: pytest.CaptureFixture[str], *, code: int = 0
) -> tuple[str, str]:
    """(stdout, stderr) of a command that exits with `code`."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        main(arguments)
    captured = capsys.readouterr()
    assert done.value.code == code, captured.err
    return captured.out, captured.err


def report(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What the command says with --json, nothing on stderr."""
    out, err = run([*arguments, "--json"], capsys)
    assert err == ""
    found: dict[str, Any] = json.loads(out)
    return found


def start(arguments: list[str], **options: object) -> subprocess.Popen[str]:
    """The command in a process of its own, its streams to be read."""
    command = [sys.executable, "-m", "ropeconv.cli", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )  # type: ignore[call-overload, no-any-return]


def loaded_by(*arguments: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after the command."""
    code = (
        "import sys\nfrom ropeconv.cli import main\ntry: "
        "main(sys.argv[1:])\nexcept SystemExit: pass\n"
    )
    code += "print('LOADED', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    line = next(row for row in done.stdout.splitlines() if row.startswith("LOADED"))
    return {module.partition(".")[0] for module in line.split()}
