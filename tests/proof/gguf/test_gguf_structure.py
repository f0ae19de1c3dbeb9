"""The structure of a GGUF file: what it states beside its numbers, each with its fault; texts that
are too short.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.api import convert
from ropeconv.errors import CheckpointError
from ropeconv.extend import ScalingRequest
from ropeconv.proof.report import FAIL, Report
from ropeconv.proof.run import verify
from tests.checkpoints import save_checkpoint
from tests.proof.conftest import CONTEXT, THETA, L, Sound
from tests.to_gguf.gguf_edits import edit

pytestmark = pytest.mark.llama
ORIGINAL = "rope.scaling.original_context_length"
NO_SCALING = {"rope.scaling.type": None, "rope.scaling.factor": None}
FOREIGN = {"ropeconv.provenance": None}


def failed(report: Report) -> dict[str, str]:
    """Rung -> its findings, for the rungs that failed."""
    return {rung.name: "\n".join(rung.findings) for rung in report.rungs if rung.status == FAIL}


def with_rope(folder: Path, out: Path, context: int, **rope: Any) -> Path:
    """A copy of the source with another rotary embedding."""
    shutil.copytree(folder, out)
    config = json.loads((out / "config.json").read_text())
    config |= {"max_position_embeddings": context, "rope_parameters": {"rope_theta": THETA, **rope}}
    (out / "config.json").write_text(json.dumps(config))
    return out


def test_a_lost_dynamic_scaling_shows_below_the_trained_length_too(
    linear: Sound, tmp_path: Path
) -> None:
    source = with_rope(linear.folder, tmp_path / "dynamic", L, rope_type="dynamic", factor=4.0)
    unscaled = linear.changed(
        strings=FOREIGN, keys=NO_SCALING | {"context_length": L, ORIGINAL: None}
    )
    path = unscaled.gguf.write(tmp_path / "t.gguf")
    found = failed(verify(path, reference=source, tokens=L))
    assert set(found) == {"structure"}
    assert "full_attention: the scaled model has dynamic scaling" in found["structure"]
    asked = failed(
        verify(
            path, reference=linear.folder, request=ScalingRequest("dynamic", factor=4.0), tokens=L
        )
    )
    assert set(asked) == {"structure"}
    # the same file is right for the unscaled model
    assert failed(verify(path, reference=linear.folder, tokens=L)) == {}


LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}


def llama3_divisors(folder: Path) -> np.ndarray[Any, Any]:
    """rope_freqs.weight, by transformers: what its rotary module rotates by, against the unscaled
    one.
    """
    import torch
    from transformers import AutoConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    scaled = LlamaRotaryEmbedding(AutoConfig.from_pretrained(folder)).inv_freq.to(torch.float64)
    plain = THETA ** (-torch.arange(8, dtype=torch.float64) / 8)
    return np.asarray((plain / scaled).tolist(), np.float32)


def test_a_table_needs_no_trained_length(linear: Sound, tmp_path: Path) -> None:
    """llama.cpp's own converter writes Llama 3 so: the table, the extended length and nothing of
    the trained one.
    """
    source = with_rope(
        linear.folder, tmp_path / "llama3", CONTEXT, **LLAMA3, original_max_position_embeddings=L
    )
    table = {"rope_freqs.weight": llama3_divisors(source)}
    silent = linear.changed(strings=FOREIGN, keys=NO_SCALING | {ORIGINAL: None}, tensors=table)
    path = silent.gguf.write(tmp_path / "t.gguf")
    assert failed(verify(path, reference=source, tokens=L + 64)) == {}
    wrong = silent.changed(keys={ORIGINAL: L // 2}).gguf.write(tmp_path / "w.gguf")
    found = failed(verify(wrong, reference=source, tokens=64))
    assert found == {
        "structure": f"original context length is {L // 2}, the model was trained on {L}"
    }
    short = silent.changed(keys={"context_length": L}).gguf.write(tmp_path / "s.gguf")
    assert failed(verify(short, reference=source, tokens=64)) == {
        "structure": f"context length is {L}, the scaled model's is {CONTEXT}"
    }


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "an epsilon that is no number": (
        {"keys": {"attention.layer_norm_rms_epsilon": float("nan")}},
        "a norm's epsilon is nan; llama.cpp aborts on it",
    ),
    "a negative epsilon": (
        {"keys": {"attention.layer_norm_rms_epsilon": -1e-6}},
        "a norm's epsilon is -9.999999974752427e-07; llama.cpp aborts on it",
    ),
    "a file type that the tensors are not": (
        {"file_type": 15},
        "general.file_type says Q4_K_M, the tensors are F32",
    ),
    "a file type of another float": (
        {"file_type": 1},
        "general.file_type says F16, the tensors are F32",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_stops_at_the_structure(fault: str, linear: Sound, tmp_path: Path) -> None:
    changes, text = FAULTS[fault]
    changes = dict(changes)
    gguf = replace(linear.gguf, file_type=changes.pop("file_type", 0))
    report = verify(gguf.changed(**changes).write(tmp_path / "t.gguf"))
    assert text in failed(report)["structure"]
    assert set(failed(report)) == {"structure"}
    assert not report.measured  # nothing was run


def test_experts_that_no_tensor_holds(linear: Sound, tmp_path: Path) -> None:
    """Where the architecture runs experts and where it runs dense models alone."""
    several = linear.gguf.changed(keys={"expert_count": 8, "expert_used_count": 2})
    with pytest.raises(CheckpointError, match="which llama has no place for"):
        verify(several.write(tmp_path / "llama.gguf"))
    source = save_checkpoint(tmp_path / "model", "qwen2", context=L)
    dense = convert(source, "gguf", tmp_path / "qwen2.gguf", type="F16").files[0]
    report = verify(edit(dense, tmp_path / "fault.gguf", {"qwen2.expert_count": 8}))
    said = "qwen2.expert_count is 8; ropeconv knows dense models only of qwen2"
    assert said in failed(report)["structure"]


@pytest.mark.parametrize("content", ["a", "<|endoftext|>"])
def test_a_text_of_one_token_proves_nothing(content: str, linear: Sound, tmp_path: Path) -> None:
    text = tmp_path / "one.txt"
    text.write_text(content)
    report = verify(linear.gguf.write(tmp_path / "t.gguf"), text=text)
    assert set(failed(report)) == {"logits"}
    assert "the text has fewer than 2 tokens" in report.rungs[-1].summary
    assert report.verdict == "FAIL: logits"


def test_advice_about_lengths_can_be_followed(linear: Sound, tmp_path: Path) -> None:
    path = linear.gguf.write(tmp_path / "t.gguf")
    assert f"(give --tokens {L + 512} or more)" in verify(path, tokens=64).verdict
    short = tmp_path / "short.txt"
    short.write_text("A short text.")
    assert "were not run (give a longer --text)" in verify(path, text=short).verdict
    half = linear.changed(
        keys={"context_length": 2 * L, "rope.scaling.factor": 2.0}, strings=FOREIGN
    )
    near = half.gguf.write(tmp_path / "near.gguf")
    request = ScalingRequest("linear", factor=2.0)
    assert (
        f"(give --tokens {2 * L})"
        in verify(near, reference=linear.folder, request=request, tokens=64).verdict
    )
