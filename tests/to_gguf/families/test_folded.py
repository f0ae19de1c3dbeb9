"""Multipliers that llama.cpp's graph does not know, in the matrices: what a file says of them, and
what no file can say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf.run import logits
from ropeconv.api import convert as convert_source
from ropeconv.api import verify
from ropeconv.errors import CannotExpress
from ropeconv.inspection.look import look
from tests.checkpoints import save_checkpoint
from tests.families import model_logits, nmse, random_ids
from tests.to_gguf import converting
from tests.to_gguf.gguf_edits import edit

pytestmark = pytest.mark.torch
L, FAMILY = 64, "falcon_h1"
IDS = random_ids(L)
KEYS = (
    *("embedding_multiplier", "lm_head_multiplier", "key_multiplier"),
    *("attention_in_multiplier", "attention_out_multiplier"),
    *("ssm_in_multiplier", "ssm_out_multiplier"),
    *(f"ssm_multipliers.{place}" for place in range(5)),
    *(f"mlp_multipliers.{place}" for place in range(2)),
)
CANNOT: dict[str, tuple[dict[str, Any], str]] = {
    "a norm before the gate": ({"mamba_norm_before_gate": True}, "mamba_norm_before_gate"),
    "a convolution without a bias": ({"mamba_conv_bias": False}, "without a bias on conv"),
    "one matrix by two numbers": ({"tie_word_embeddings": True}, r"by 0\.7 and by 1\.5"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("folded")
    source = save_checkpoint(folder / "model", FAMILY, context=L)
    out = folder / "sound.gguf"
    return source, converting.convert(source, out, None, type="F32").files[0]


def test_a_file_that_does_not_say_them_is_that_of_a_model_without(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    source, sound = made
    silent = edit(
        sound, tmp_path / "silent.gguf", {f"falcon-h1.folded.{key}": None for key in KEYS}
    )
    convert_source(silent, "safetensors", tmp_path / "out")
    found, wanted = (
        AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
        for folder in (tmp_path / "out", source)
    )
    assert found.config.key_multiplier == 1.0 != wanted.config.key_multiplier
    assert nmse(model_logits(found, IDS), model_logits(wanted, IDS)) < 1e-10


@pytest.mark.llama
@pytest.mark.parametrize("key", ["key_multiplier", "ssm_multipliers.3"])
def test_a_number_that_is_not_what_was_folded_is_seen(
    key: str, made: tuple[Path, Path], tmp_path: Path
) -> None:
    source, sound = made
    bad = edit(sound, tmp_path / "bad.gguf", {f"falcon-h1.folded.{key}": 1.01})
    report = verify(bad, reference=source, tokens=L)
    failed = {rung.name for rung in report.rungs if rung.status == "fail"}
    assert {"structure", "weights"} <= failed


@pytest.mark.llama
def test_a_table_that_the_loader_takes_for_nothing_is_called_so(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    source, sound = made
    table = {"rope_freqs.weight": np.full(8, 4.0, np.float32)}
    bad = edit(sound, tmp_path / "bad.gguf", added=table)
    with_it, without = (np.concatenate(list(logits(p, IDS, L))) for p in (bad, sound))
    assert np.array_equal(with_it, without)
    found = {finding.name: finding for finding in look(bad).findings}
    assert "never uses it" in str(found["G10"].effects)
    assert "G8" not in found  # that llama.cpp refuses it
    report = verify(bad, reference=source, tokens=L)
    (rung,) = (rung for rung in report.rungs if rung.name == "structure")
    assert list(rung.findings) == [
        "rope_freqs.weight is loaded and never used: what it should scale runs unscaled"
    ]


@pytest.mark.parametrize("case", CANNOT)
def test_what_no_file_can_say_is_refused(case: str, tmp_path: Path) -> None:
    changes, words = CANNOT[case]
    source = save_checkpoint(tmp_path / "model", FAMILY, context=L, **changes)
    with pytest.raises(CannotExpress, match=words) as refusal:
        converting.convert(source, tmp_path / "out.gguf", None)
    assert "\n" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
