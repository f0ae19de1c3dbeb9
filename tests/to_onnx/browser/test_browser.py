"""transformers.js in a real Chromium, by WebAssembly and from this machine alone: the greedy text
of the same folder in Node.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_onnx.read.folder import Folder
from tests.checkpoints import save_checkpoint, with_config
from tests.methods import L
from tests.to_onnx.clients import CLIENTS, NODE, convert, job

pytestmark = pytest.mark.node

GENERATE = Path(__file__).parent / "generate.mjs"
SEA = "<|im_start|>user\nTell me about the sea.<|im_end|>\n<|im_start|>assistant\n"
TRAINED, TOKENS = 18, 8  # that SmolLM2 is told it was trained on; to generate, a second each


def node(*arguments: str, **environment: str) -> str:
    """What the script prints."""
    if not (NODE / "node_modules" / "@huggingface" / "transformers").is_dir():
        pytest.skip("transformers.js is not installed; run `make clients`")
    done = subprocess.run(
        ["node", str(GENERATE), *arguments],
        cwd=NODE,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@cache
def missing() -> str:
    """Why no browser runs here; empty where one does."""
    return node("--check")


def in_browser(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if missing():
        pytest.skip(missing())
    answers: list[dict[str, Any]] = json.loads(node(json.dumps(jobs)).splitlines()[-1])
    return answers


def in_node(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return CLIENTS["transformers.js"].generate(jobs)


@pytest.mark.real
def test_smollm2_in_int4_writes_the_text_of_node(smollm2: Path, tmp_path: Path) -> None:
    """From within a trained length to past it: PI turns there as it does past any other."""
    told = {"max_position_embeddings": TRAINED, "original_max_position_embeddings": None}
    source = with_config(smollm2, tmp_path / "source", **told)
    out = convert(source, tmp_path / "out", "--pi-factor", "4", "--type", "int4", "--add")
    jobs = [job(out, [SEA], tokens=TOKENS)]
    (answer,) = in_browser(jobs)
    assert len(answer["prompt"][0]) < TRAINED < len(answer["prompt"][0]) + TOKENS
    assert [answer] == in_node(jobs)
    assert len(set(answer["ids"][0])) > 5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama in all types beside one another."""
    source = save_checkpoint(tmp_path_factory.mktemp("browser") / "model", "llama", context=L)
    out = source.parent / "folder"
    for kind in ("fp32", "int8", "int4"):
        # Node rounds activations where WebAssembly does not, unless it is told not to
        more = () if kind == "fp32" else ("--accuracy-level", "1")
        convert(source, out, "--pi-factor", "4", "--type", kind, "--add", *more)
    return out


PROMPTS = ["def", "Names refer to objects. " * 26]


def test_every_type_writes_the_text_of_node_past_l_and_padded(tiny: Path) -> None:
    jobs = [job(tiny, PROMPTS, tokens=24) | {"dtype": kind} for kind in ("fp32", "q8", "q4")]
    answers = in_browser(jobs)
    assert len(answers[0]["prompt"][1]) > L
    assert answers == in_node(jobs)
    assert answers[0]["ids"] != answers[2]["ids"]


def test_another_number_makes_another_text(tiny: Path, tmp_path: Path) -> None:
    """The comparison can fail: one matrix negated in what the browser is given."""
    out = shutil.copytree(tiny, tmp_path / "folder")
    array = Folder(out / "onnx" / "model.onnx").arrays["model.layers.1.mlp.down_proj.weight"]
    assert isinstance(array, np.memmap)
    spoiled = np.memmap(array.filename, array.dtype, "r+", array.offset, array.shape)
    spoiled *= -1
    spoiled.flush()
    right, wrong = ([job(folder, PROMPTS[1:], tokens=24)] for folder in (tiny, out))
    assert in_browser(wrong) != in_node(right)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    browser = tmp_path / "chromium"
    browser.write_text(
        "#!/bin/sh\necho error while loading shared libraries: libnss3.so >&2\nexit 127\n"
    )
    browser.chmod(0o755)
    said = node("--check", CHROMIUM=str(browser))
    assert said == f"{browser} does not run: error while loading shared libraries: libnss3.so"
    assert "is not there" in node("--check", CHROMIUM=str(tmp_path / "none"))
