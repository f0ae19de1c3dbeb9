"""Files that end the process in which llama.cpp reads them: a line, and the next file is read."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converters.to_gguf import run
from ropeconv.errors import CheckpointError
from tests.checkpoints import save_checkpoint
from tests.command_line import start
from tests.to_gguf.converting import convert
from tests.to_gguf.gguf_edits import edit

pytestmark = pytest.mark.llama

HERE = "list(library.logits(path, [1, 2], 256, start=0, calls=[2], cache=Cache()))"
CASES: dict[str, tuple[str, dict[str, Any], Callable[[Path], object], str, str]] = {
    "more experts used than there are": (
        "qwen3_moe",
        {"qwen3moe.expert_used_count": 99},
        lambda path: list(run.logits(path, [1, 2], 256)),
        HERE,
        "GGML_ASSERT",
    ),
    "byte-pair tokens called SentencePiece's": (
        "llama",
        {"tokenizer.ggml.model": "llama"},
        lambda path: run.tokenize(path, "a café of words"),
        "library.tokenize(path, 'a café of words')",
        "out_of_range",
    ),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Sound files by family."""
    root = tmp_path_factory.mktemp("aborts")
    return {
        family: convert(
            save_checkpoint(root / family, family, context=256), root / f"{family}.gguf"
        ).files[0]
        for family in ("llama", "qwen3_moe")
    }


@pytest.mark.parametrize("name", CASES)
def test_an_abort_is_one_line_and_the_next_file_runs(
    name: str, files: dict[str, Path], tmp_path: Path
) -> None:
    family, keys, ask, _, reason = CASES[name]
    wrong = edit(files[family], tmp_path / "wrong.gguf", keys)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=rf"library aborts on it \(.*{reason}") as caught:
            ask(wrong)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(f"{wrong}: ")
    assert ask(files[family])


@pytest.mark.parametrize("name", CASES)
def test_the_library_itself_ends_the_process(
    name: str, files: dict[str, Path], tmp_path: Path
) -> None:
    family, keys, _, here, _ = CASES[name]
    wrong = edit(files[family], tmp_path / "wrong.gguf", keys)
    code = (
        "import sys; from pathlib import Path; from converters.to_gguf.llama import library\n"
        "from converters.to_gguf.llama.frames import Cache\n"
        f"path = Path(sys.argv[1]); {here}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(wrong)], capture_output=True, check=False, timeout=120
    )
    assert done.returncode == -signal.SIGABRT


@pytest.mark.torch
@pytest.mark.parametrize("name", CASES)
def test_verify_ends_by_itself(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    family, keys, _, _, _ = CASES[name]
    wrong = edit(files[family], tmp_path / "wrong.gguf", keys)
    reference = str(files[family].with_suffix(""))
    process = start(["verify", str(wrong), "--reference", reference, "--tokens", "16", "--quiet"])
    out, errors = process.communicate(timeout=180)
    assert process.returncode in (1, 2), (out, errors)
    assert "Traceback" not in errors
    assert "unexpected" not in errors


def test_blocks_of_two_runs_come_in_turn(files: dict[str, Path]) -> None:
    """Two files are read at once, and one is left before its end."""
    ids = list(range(3, 43))
    alone = {name: list(run.logits(path, ids, 256, calls=[20, 20])) for name, path in files.items()}
    both = zip(
        *(run.logits(path, ids, 256, calls=[20, 20]) for path in files.values()), strict=True
    )
    for found, wanted in zip(both, zip(*alone.values(), strict=True), strict=True):
        assert all((a == b).all() for a, b in zip(found, wanted, strict=True))
    left = run.logits(files["llama"], ids, 256, calls=[20, 20])
    assert (next(left) == alone["llama"][0]).all()
    left.close()  # type: ignore[attr-defined]
    assert run.tokenize(files["llama"], "word")
