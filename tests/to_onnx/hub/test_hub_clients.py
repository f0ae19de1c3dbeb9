"""Clients that are given a folder of several types: the text of the type that they ask for, and of
the first one where they ask for none.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints import save_checkpoint
from tests.methods import L
from tests.to_onnx.clients import CLIENTS, convert, job

pytestmark = pytest.mark.node

WORDS = {"fp16": "fp16", "int8": "q8", "q4f16": "q4f16"}  # the first type is not the smallest
PROMPT = ["Names refer to objects. " * 26]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each type alone, and all in one folder."""
    root = tmp_path_factory.mktemp("clients")
    source = save_checkpoint(root / "model", "llama", context=L)
    for kind in WORDS:
        convert(source, root / kind, "--pi-factor", "4", "--type", kind)
        convert(source, root / "every", "--pi-factor", "4", "--type", kind, "--add")
    return root


def test_transformers_js_takes_the_type_that_it_is_told(folders: Path) -> None:
    jobs = [job(folders / kind, PROMPT, tokens=24) for kind in WORDS]
    told = [job(folders / "every", PROMPT, tokens=24) | {"dtype": word} for word in WORDS.values()]
    alone = CLIENTS["transformers.js"].generate(jobs)
    assert CLIENTS["transformers.js"].generate(told) == alone
    assert len(alone[0]["prompt"][0]) > L
    assert alone[0] != alone[2]


@pytest.mark.parametrize("name", ["onnxruntime-genai", "transformers.js"])
def test_the_first_type_is_taken_where_none_is_told(name: str, folders: Path) -> None:
    jobs = [job(folders / kind, PROMPT, tokens=24) for kind in ("every", "fp16", "q4f16")]
    found, first, other = CLIENTS[name].generate(jobs)
    assert found == first
    assert found != other
