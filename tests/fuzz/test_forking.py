"""The tests that fork, each file in a process of its own: a fork of one whose libraries have
threads may wait for them for ever.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LONGEST = 1200  # seconds


@pytest.mark.llama
@pytest.mark.torch
@pytest.mark.parametrize("file", sorted(path.name for path in HERE.glob("forking_*.py")))
def test_in_a_process_of_its_own(file: str) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(HERE / file)],
        cwd=HERE.parents[1],
        env=own,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout
