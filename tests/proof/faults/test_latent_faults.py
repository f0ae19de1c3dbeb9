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
from ropeconv.errors import CheckpointError, RopeConfigError
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
    "one group of experts fewer": (LINEAR, {USED: 1}, {}, "structure"),
    "keys of other heads": (LINEAR, {}, {"blk.0.attn_k_b.weight": one_head_on}, "weights"),
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


def test_scores_that_a_composed_scaling_would_lose_are_refused(tmp_path: Path) -> None:
    trained = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": L}
    trained |= {"rope_theta": 20000.0, "mscale": 1.0, "mscale_all_dim": 1.0}
    source = save_checkpoint(tmp_path / "model", "youtu", context=4 * L, rope=trained)
    more = ScalingRequest(kind="linear", factor=2, on_existing="compose")
    with pytest.raises(RopeConfigError, match=r"multiplies scores by 1\.296 \(mscale_all_dim\)"):
        convert(source, "gguf", tmp_path / "out.gguf", scaling=more)
    convert(source, "gguf", tmp_path / "out.gguf", type="F32")  # as it is trained
    assert verify(tmp_path / "out.gguf", tokens=3 * L).ok
