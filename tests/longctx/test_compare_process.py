"""Comparisons as processes: out of memory, interrupted, shared out."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.checkpoints import save_checkpoint
from tests.longctx.comparing import start
from tests.longctx.two_processes import launch_two


@pytest.mark.torch
def test_out_of_memory_is_one_line(text: Path, tmp_path: Path) -> None:
    """8192 tokens in a layer 65536 wide want 2 GiB a tensor; a limit stands for a small machine."""
    wide = save_checkpoint(tmp_path / "wide", "llama", context=4096, intermediate_size=65536)
    common = [
        "compare",
        str(wide),
        "--methods",
        "none,pi",
        "--passkeys",
        "0",
        "--quiet",
        "--tokens",
        "8192",
    ]
    done = start(*common, "-o", str(tmp_path / "out"), limit=5_000_000)
    _, said = done.communicate()
    assert done.returncode == 2, said
    assert "out of memory during none; take fewer --tokens" in said
    assert "Traceback" not in said


@pytest.mark.torch
def test_an_interrupted_comparison_keeps_its_rows(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    common = [
        "compare",
        str(tiny),
        "--factors",
        "2,4,8,16",
        "--tokens",
        "4096",
        "--passkeys",
        "0",
        "--quiet",
        "-o",
        str(out),
    ]
    running = start(*common)
    deadline = time.monotonic() + 120
    while len(list(out.glob("rows/*.npz"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 2
    assert "interrupted" in said
    assert not (out / "report.html").exists()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("rows/[!.]*.npz")}
    assert 2 <= len(kept) < 25
    again = start(*common)
    assert (again.communicate()[1], again.returncode) == ("", 0)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert (out / "report.html").exists()


@pytest.mark.torch
def test_two_processes_measure_as_one(tiny: Path, text: Path, tmp_path: Path) -> None:
    common = [
        "compare",
        str(tiny),
        "--text",
        str(text),
        "--tokens",
        "900",
        "--passkeys",
        "2",
        "--json",
    ]
    alone = start(*common, "-o", str(tmp_path / "alone"))
    one, _ = alone.communicate()
    told = launch_two(tmp_path / "ranks", *common, "-o", str(tmp_path / "two"))
    two = json.loads(next(line for line in told.splitlines() if line.startswith("{")))
    assert [row["label"] for row in two["rows"]] == [
        row["label"] for row in json.loads(one)["rows"]
    ]
    for first, second in zip(json.loads(one)["rows"], two["rows"], strict=True):
        assert first["whole"]["loss"] == pytest.approx(second["whole"]["loss"], abs=1e-5)
        assert [key["loss"] for key in first["passkeys"]] == pytest.approx(
            [key["loss"] for key in second["passkeys"]], abs=1e-4
        )
