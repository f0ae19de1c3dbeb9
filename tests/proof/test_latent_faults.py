"""Faults in a file of latent attention: what its graph multiplies scores by, its heads, its groups
of experts. The structure or the weights show them, and so do llama.cpp's logits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.api import convert, verify
from ropeconv.errors import CheckpointError
from ropeconv.extend import ScalingRequest
from tests.checkpoints import save_checkpoint
from tests.to_gguf.gguf_edits import edit

pytestmark = [pytest.mark.llama, pytest.mark.torch]
L = 64
SCALE = "deepseek2.rope.scaling.yarn_log_multiplier"
USED = "deepseek2.expert_group_used_count"
LINEAR: dict[str, Any] = {"kind": "linear"}
YARN = {"kind": "yarn", "parameters": {"mscale": 1.0, "mscale_all_dim": 0.5}}
Change = Callable[[np.ndarray], np.ndarray]


def one_head_on(heads: np.ndarray) -> np.ndarray:
    return np.roll(heads, 1, axis=0)


# what is asked for, keys and tensors of the file that become others, the rung that tells why
FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Change], str]] = {
    "YaRN, scores as llama.cpp scales them": (YARN, {SCALE: None}, {}, "structure"),
    "YaRN, scores by another number": (YARN, {SCALE: 0.1}, {}, "structure"),
    "one group of experts fewer": (LINEAR, {USED: 1}, {}, "structure"),
    "one group of experts more": (LINEAR, {USED: 3}, {}, "structure"),
    "keys of other heads": (LINEAR, {}, {"blk.0.attn_k_b.weight": one_head_on}, "weights"),
    "values of other heads": (LINEAR, {}, {"blk.1.attn_v_b.weight": one_head_on}, "weights"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Path]:
    root = tmp_path_factory.mktemp("latent")
    save_checkpoint(root / "model", "deepseek_v3", context=L)

    def make(asked: dict[str, Any]) -> Path:
        out = root / f"{asked['kind']}.gguf"
        if not out.exists():
            scaling = ScalingRequest(factor=4, **asked)
            convert(root / "model", "gguf", out, scaling=scaling, type="F32")
        return out

    return make


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_latent_attention_is_seen(name: str, files: Any, tmp_path: Path) -> None:
    asked, keys, tensors, rung = FAULTS[name]
    sound = files(asked)
    bad = edit(sound, tmp_path / "bad.gguf", keys, tensors=tensors)
    report = verify(bad, reference=sound.parent / "model", tokens=2 * L)
    failed = {one.name for one in report.rungs if one.status == "fail"}
    assert {rung, "logits"} <= failed


def test_scores_that_no_config_says_are_refused(files: Any, tmp_path: Path) -> None:
    """As llama.cpp scales them under linear scaling, in a file that says nothing of it."""
    bad = edit(files(LINEAR), tmp_path / "bad.gguf", {SCALE: None})
    told = r"multiplies the scores of this GGUF file by 1\.296"
    with pytest.raises(CheckpointError, match=told):
        verify(bad, reference=files(LINEAR).parent / "model")
    with pytest.raises(CheckpointError, match=told):
        convert(bad, "safetensors", tmp_path / "folder")
