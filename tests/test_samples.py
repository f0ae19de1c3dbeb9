"""Samples run as a reader would run them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.real
def test_smollm2_x4_is_converted_and_proven(tmp_path: Path) -> None:
    """By fewer tokens than `make sample` takes, which goes past the trained context."""
    done = subprocess.run(
        ["bash", "samples/smollm2_x4.sh", str(tmp_path), "--tokens", "1024"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1024 tokens" in done.stdout
    assert "PASS" in done.stdout
