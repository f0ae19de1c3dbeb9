"""A tied model in an architecture that needs an output matrix: written twice, read back as one
where the bytes are the same, and judged by the token embedding.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ropeconv.api import verify
from ropeconv.proof.report import TWIN
from tests.checkpoints import save_checkpoint
from tests.to_gguf.converting import PI, convert, read_back
from tests.to_gguf.gguf_edits import edit

L = 256


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tied") / "model"
    return save_checkpoint(folder, "olmo2", context=L, tie_word_embeddings=True)


@pytest.mark.llama
def test_a_tied_output_is_proven(source: Path, tmp_path: Path) -> None:
    out = convert(source, tmp_path / "out.gguf", PI, type="F32").files[0]
    assert read_back(out).stack.tied
    assert verify(out, tokens=64).ok
    again = convert(out, tmp_path / "again.gguf").files[0]
    assert verify(again, tokens=64).ok


@pytest.mark.llama
@pytest.mark.parametrize(("kind", "tied"), [("Q8_0", True), ("Q4_K_M", False)])
def test_two_matrices_of_one_are_each_proven(
    kind: str, tied: bool, source: Path, tmp_path: Path
) -> None:
    """Q4_K_M rounds the two otherwise: the reference then has both, as the file's float twin."""
    out = convert(source, tmp_path / "out.gguf", PI, type=kind).files[0]
    assert read_back(out).stack.tied is tied
    report = verify(out, tokens=64, exact=True)
    # rounded activations move a random model's mean loss by as much as limits allow
    assert {rung.name for rung in report.rungs if rung.status == "fail"} <= {"logits"}
    (twin,) = (one for one in report.measured if one.artefact == TWIN)
    assert twin.whole.nmse <= 1e-9


@pytest.mark.llama
@pytest.mark.parametrize("kind", ["F32", "Q4_K_M"])
def test_a_wrong_row_of_the_second_matrix_is_seen(kind: str, source: Path, tmp_path: Path) -> None:
    out = convert(source, tmp_path / "out.gguf", PI, type=kind).files[0]
    bad = edit(out, tmp_path / "bad.gguf", tensors={"output.weight": swapped})
    report = verify(bad, tokens=64)
    (weights,) = (rung for rung in report.rungs if rung.name == "weights")
    assert weights.status == "fail"
    assert "lm_head.weight" in weights.findings[0]
    assert "[40, 0" in weights.findings[0]


def swapped(rows: np.ndarray) -> np.ndarray:
    changed = np.array(rows)
    changed[[40, 41]] = changed[[41, 40]]
    return changed
