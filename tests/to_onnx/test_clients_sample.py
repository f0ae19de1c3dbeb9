"""The ONNX sample as a reader would run it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.node
@pytest.mark.real
def test_smollm2_is_converted_proven_and_answers(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "samples/onnx_x4.sh", str(tmp_path), "--tokens", "1024"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS" in done.stdout
    assert (
        "Paris" in done.stdout.splitlines()[-1]
        or "Paris" in done.stdout.rpartition("onnx_generate.py")[2]
    )
