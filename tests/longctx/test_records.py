"""The small files of a long run: whole or not at all, with nothing left beside them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ropeconv.longctx.measuring.records import write_text

STOPPED = """import signal, sys, time
from pathlib import Path
from ropeconv.kit.replacing.record import replacing_record

signal.signal(signal.SIGTERM, signal.default_int_handler)
with replacing_record(Path(sys.argv[1])) as part:
    part.write_text("half")
    print("half", flush=True)
    time.sleep(60)
"""


def test_a_text_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = write_text(tmp_path / "report.md", "before")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \ud800")
    assert [p.name for p in tmp_path.iterdir()] == ["report.md"]
    assert path.read_text() == "before"


def test_an_interrupt_leaves_the_one_before(tmp_path: Path) -> None:
    path = write_text(tmp_path / "state.pt", "before")
    run = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "half\n"
    time.sleep(0.1)
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    assert run.returncode
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]
    assert path.read_text() == "before"


def test_what_a_killed_run_left_is_taken_over(tmp_path: Path) -> None:
    path = write_text(tmp_path / "report.md", "before")
    (tmp_path / ".report.md.part").write_text("a longer text than the new one")
    write_text(path, "after")
    assert [p.name for p in tmp_path.iterdir()] == ["report.md"]
    assert path.read_text() == "after"
