"""Commands run in this process, as a user types them."""

from __future__ import annotations

import json
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
