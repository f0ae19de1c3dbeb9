"""Samples run as a reader would run them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.real
def test_smollm2_x4_is_converted_and_proven_past_the_trained_context(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "samples/smollm2_x4.sh", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9216 tokens, 1024 of them past the trained 8192" in done.stdout
    assert "PASS" in done.stdout
