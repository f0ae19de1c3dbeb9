"""Folders loaded by both majors of transformers, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.families import random_ids
from tests.methods import FACTOR, L

TF4 = Path(__file__).parents[2] / "build" / "transformers4"
LENGTHS = [L - 6, FACTOR * L]
IDS = np.array(random_ids(FACTOR * L))
Numbers = dict[str, Any]
# Families without a class in transformers 4, which says so
LACKING_IN_4 = (
    "cwm",
    "gemma4_text",
    "glm4_moe_lite",
    "granite_swa",
    "granitemoe_swa",
    "hy_v3",
    "hyperclovax",
    "internlm3",
    "iquestcoder",
    "jais2",
    "lfm2_moe",
    "mellum",
    "minicpm3",
    "minimax_m2",
    "qwen3_5_moe_text",
    "qwen3_5_text",
    "ministral3",
    "solar_open",
    "youtu",
)


def load_in(major: int, paths: list[Path], work: Path) -> Numbers:
    """Everything that one major computes from the folders, in a process of its own."""
    assert major == 5 or TF4.is_dir(), "run `make build/transformers4/.installed`"
    request, result = work / f"request-{major}.npz", work / f"result-{major}.npz"
    np.savez(
        request, ids=IDS, lengths=np.array(LENGTHS), folders=np.array([str(path) for path in paths])
    )
    environment = os.environ | ({"PYTHONPATH": str(TF4)} if major == 4 else {})
    script = Path(__file__).with_name("majors.py")
    done = subprocess.run(
        [sys.executable, str(script), str(request), str(result)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    numbers = dict(np.load(result))
    assert str(numbers["version"]).startswith(f"{major}.")
    return numbers
