"""Comparisons as tests ask for them, in this process or in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ropeconv.cli import main
from ropeconv.longctx.compare.question import Question
from ropeconv.longctx.compare.run import Comparison, compare

ROPE = {"rope_type": "linear", "factor": 2.0, "rope_theta": 20000.0}


def ask(source: Path, folder: Path, **choices: Any) -> Comparison:
    values: dict[str, Any] = {
        "methods": ["none", "pi"],
        "factors": [2.0],
        "tokens": 512,
        "passkeys": 0,
    } | choices
    found = compare(source, folder, question=Question(**values))
    assert found is not None
    return found


def ids_of(folder: Path, text: Path, count: int) -> list[int]:
    from transformers import AutoTokenizer

    ids: list[int] = AutoTokenizer.from_pretrained(folder)(text.read_text())["input_ids"]
    return ids[:count]


def run(folder: Path, arguments: list[str]) -> None:
    old = Path.cwd()
    os.chdir(folder)
    try:
        with pytest.raises(SystemExit) as done:
            main(arguments)
    finally:
        os.chdir(old)
    assert done.value.code == 0


def start(*arguments: str, limit: int | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ropeconv", *arguments]
    if limit is not None:
        command = ["bash", "-c", f'ulimit -v {limit}; exec "$@"', "bash", *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if limit is not None:  # a CUDA device is mapped into more addresses than any limit
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
