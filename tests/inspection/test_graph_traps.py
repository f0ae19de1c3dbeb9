"""Traps of single architectures of llama.cpp: a file that shows it, found by name; llama.cpp says
that the effect is as told, and that the file without the trap has none.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf.run import logits
from ropeconv import api
from ropeconv.errors import CheckpointError, RopeConfigError
from ropeconv.finding import Finding
from ropeconv.inspection.look import look
from ropeconv.inspection.mend import mend
from ropeconv.prepare import prepare
from tests.checkpoints import VOCAB, save_checkpoint
from tests.families import make_model, random_ids
from tests.gguf_files import Gguf, to_gguf
from tests.methods import THETA, L, ramp
from tests.to_gguf.gguf_edits import edit

pytestmark = pytest.mark.llama
IDS = random_ids(L)
FREQS = {"rope_freqs.weight": np.array(ramp(4.0), np.float32)}


def named(path: Path, name: str) -> Finding | None:
    return next((found for found in look(path).findings if found.name == name), None)


def run(path: Path) -> np.ndarray:
    return np.concatenate(list(logits(path, IDS, L)))


def written(tmp_path: Path, family: str, **config: Any) -> Path:
    """A file that ropeconv writes, sound in itself."""
    source = save_checkpoint(tmp_path / "source", family, context=L, **config)
    return api.convert(source, "gguf", tmp_path / "sound.gguf", type="F32").files[0]


def pangu() -> Gguf:
    """A Qwen2 whose attention has an output bias: what llama.cpp's pangu-embedded loads."""
    model = make_model(
        "qwen2", {"rope_type": "default", "rope_theta": THETA}, context=L, vocab_size=VOCAB
    )
    file = replace(to_gguf(model, keys={"rope.freq_base": THETA}), arch="pangu-embedded")
    biases = {f"blk.{n}.attn_output.bias": np.zeros(64, np.float32) for n in range(2)}
    return file.changed(tensors=biases)


def test_g10_a_table_that_is_loaded_and_never_used(tmp_path: Path) -> None:
    plain = pangu().write(tmp_path / "plain.gguf")
    table = pangu().changed(tensors=FREQS).write(tmp_path / "table.gguf")
    found = named(table, "G10")
    assert found is not None
    assert found.severity == "error"
    with pytest.raises(CheckpointError, match="no GGUF architecture"):  # nothing else to say of it
        look(plain)
    assert np.array_equal(run(table), run(plain))
    scaled = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    advised = pangu().changed(keys=scaled).write(tmp_path / "advised.gguf")
    assert not np.allclose(run(advised), run(plain), atol=1e-2)


def test_g11_a_table_that_no_loader_creates(tmp_path: Path) -> None:
    file = replace(pangu(), arch="deepseek").changed(tensors=FREQS)
    found = named(file.write(tmp_path / "table.gguf"), "G11")
    assert found is not None
    assert found.severity == "error"
    with pytest.raises(CheckpointError):
        run(tmp_path / "table.gguf")


def test_g12_a_step_of_the_query_temperature_without_its_length(tmp_path: Path) -> None:
    sound = written(tmp_path, "ministral3")
    key = "mistral3.rope.scaling.original_context_length"
    trap = edit(sound, tmp_path / "trap.gguf", {key: None, "mistral3.context_length": 4 * L})
    assert named(sound, "G12") is None
    found = named(trap, "G12")
    assert found is not None
    assert found.severity == "error"
    with pytest.raises(RopeConfigError, match=r"^G12: "):
        prepare(trap, None)
    right = np.concatenate(list(logits(sound, random_ids(2 * L), 4 * L)))
    wrong = np.concatenate(list(logits(trap, random_ids(2 * L), 4 * L)))
    assert not np.allclose(right, wrong, atol=1e-2)
    mended = mend(trap, tmp_path / "mended.gguf", original_context=L)
    assert "G12" in mended.mended
    again = np.concatenate(list(logits(tmp_path / "mended.gguf", random_ids(2 * L), 4 * L)))
    assert np.allclose(again, right, atol=1e-4)


CAPS = ("gemma2.attn_logit_softcapping", "gemma2.final_logit_softcapping")


def test_g13_caps_that_are_assumed_or_divide_by_zero(tmp_path: Path) -> None:
    sound = written(tmp_path, "gemma2")
    assert named(sound, "G13") is None
    silent = edit(sound, tmp_path / "silent.gguf", dict.fromkeys(CAPS))
    found = named(silent, "G13")
    assert found is not None
    assert found.severity == "note"
    assert np.array_equal(run(silent), run(sound))  # the class has the same two numbers
    for cap in CAPS:
        zero = edit(sound, tmp_path / f"{cap}.gguf", {cap: 0.0})
        with pytest.raises(RopeConfigError, match=r"^G13: "):
            prepare(zero, None)
        assert not np.allclose(run(zero), run(sound), atol=1e-2)


def test_g14_a_log_line_that_is_a_switch(tmp_path: Path) -> None:
    sound = written(tmp_path, "granite")
    trap = edit(sound, tmp_path / "trap.gguf", {"granite.rope.scaling.finetuned": False})
    assert named(sound, "G14") is None
    with pytest.raises(RopeConfigError, match=r"^G14: "):
        prepare(trap, None)
    assert not np.allclose(run(trap), run(sound), atol=1e-2)
    assert mend(trap, tmp_path / "mended.gguf").mended == ("G14",)
    assert np.allclose(run(tmp_path / "mended.gguf"), run(sound), atol=1e-4)


def test_g15_a_base_of_the_windowed_layers_that_is_not_used(tmp_path: Path) -> None:
    sound = written(tmp_path, "olmo3")
    trap = edit(sound, tmp_path / "trap.gguf", {"olmo2.rope.freq_base_swa": 500.0})
    assert named(sound, "G15") is None
    with pytest.raises(RopeConfigError, match=r"^G15: "):
        prepare(trap, None)
    assert np.array_equal(run(trap), run(sound))
    assert mend(trap, tmp_path / "mended.gguf").mended == ("G15",)
