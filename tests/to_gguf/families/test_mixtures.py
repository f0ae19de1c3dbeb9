"""Families of experts in GGUF: read back as they were, each routing fact of a quantised
file seen when it is wrong, refused where llama.cpp's graph fixes another.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.api import convert as convert_source
from ropeconv.api import verify
from ropeconv.config.understand import understand
from ropeconv.errors import CannotExpress, CheckpointError
from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import save_checkpoint
from tests.to_gguf.converting import PI, convert, read_back
from tests.to_gguf.gguf_edits import edit

L = 256
MIXTURES = (
    "deepseek_v2",
    "deepseek_v3",
    "dots1",
    "ernie4_5_moe",
    "glm4_moe",
    "glm4_moe_lite",
    "gpt_oss",
    "granitemoe",
    "granitemoe_swa",
    "granitemoeshared",
    "hunyuan_v1_moe",
    "hy_v3",
    "mellum",
    "minimax_m2",
    "mixtral",
    "olmoe",
    "qwen2_moe",
    "solar_open",
)
Change = Callable[[np.ndarray], np.ndarray]


def save(folder: Path, family: str, **config: Any) -> Path:
    return save_checkpoint(folder, family, context=L, **config)


@pytest.mark.parametrize("family", MIXTURES)
def test_a_file_comes_back(family: str, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    source = save(tmp_path / "model", family)
    out = convert(source, tmp_path / "out.gguf", type="F32").files[0]
    assert read_back(out).stack.layers == understand(open_checkpoint(source)).stack.layers
    convert_source(out, "safetensors", tmp_path / "folder")
    (file,) = (tmp_path / "folder").glob("*.safetensors")
    back, ours = load_file(file), load_file(source / "model.safetensors")
    assert back.keys() == ours.keys()
    assert all(np.array_equal(back[name], ours[name]) for name in ours)


def zeros(values: np.ndarray) -> np.ndarray:
    return np.zeros_like(values)


def sunk(values: np.ndarray) -> np.ndarray:
    return np.full_like(values, -1e30)


def turned(values: np.ndarray) -> np.ndarray:
    return values[::-1].copy()


# family, what is wrong -> keys that change, tensors that change
FAULTS: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Change]]] = {
    ("mixtral", "two experts swapped"): ({}, {"blk.0.ffn_up_exps.weight": turned}),
    ("mixtral", "an expert fewer"): ({"llama.expert_used_count": 1}, {}),
    ("qwen2_moe", "another gate"): ({}, {"blk.1.ffn_gate_inp_shexp.weight": np.negative}),
    ("hunyuan_v1_moe", "no shared expert"): ({}, {"blk.1.ffn_down_shexp.weight": zeros}),
    ("ernie4_5_moe", "no bias"): ({}, {"blk.1.exp_probs_b.bias": zeros}),
    ("granitemoeshared", "no shared expert"): ({}, {"blk.1.ffn_down_shexp.weight": zeros}),
    ("granitemoe_swa", "no sinks"): ({}, {"blk.1.attn_sinks.weight": sunk}),
    ("gpt_oss", "experts without biases"): ({}, {"blk.1.ffn_down_exps.bias": zeros}),
    ("gpt_oss", "a router without biases"): ({}, {"blk.1.ffn_gate_inp.bias": zeros}),
    ("dots1", "no scale"): ({"dots1.expert_weights_scale": None}, {}),
    ("dots1", "weights that do not add up"): ({"dots1.expert_weights_norm": False}, {}),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's Q8_0 file, which passes as it was written."""

    @cache
    def make(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        source = save(folder / "model", family)
        out = convert(source, folder / "out.gguf", PI, type="Q8_0").files[0]
        report = verify(out, tokens=L)
        assert report.ok, [rung.findings for rung in report.rungs]
        return out

    return make


@pytest.mark.llama
@pytest.mark.torch
@pytest.mark.parametrize(("family", "fault"), FAULTS)
def test_a_wrong_fact_fails_verify(family: str, fault: str, sound: Callable[[str], Path]) -> None:
    keys, tensors = FAULTS[family, fault]
    out = sound(family)
    beside = out.with_name(f"{fault}.gguf")  # it finds its source by a path from where it lies
    assert not verify(edit(out, beside, keys, tensors=tensors), tokens=L).ok


@pytest.mark.parametrize(("host", "arch"), [("auto", "glm4moe"), ("step35", "step35")])
def test_scores_that_no_config_says_are_refused(host: str, arch: str, tmp_path: Path) -> None:
    source = save(tmp_path / "model", "glm4_moe")
    out = convert(source, tmp_path / "out.gguf", type="F16", host=host).files[0]
    read_back(out)
    softmax = edit(out, tmp_path / "softmax.gguf", {f"{arch}.expert_gating_func": 1})
    with pytest.raises(CheckpointError, match=r"expert_gating_func is 1, .* have 2"):
        read_back(softmax)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "gpt_oss, alpha": ("gpt_oss", {"swiglu_alpha": 1.5}, "swiglu_alpha 1.5"),
    "gpt_oss, limit": ("gpt_oss", {"swiglu_limit": 5.0}, "swiglu_limit 5"),
    "gpt_oss, biases": ("gpt_oss", {"attention_bias": False}, "does not load without a bias on o"),
    "gpt_oss, windows": (
        "gpt_oss",
        {"layer_types": ["full_attention"] * 4},
        "does not load without a layer that has a window",
    ),
    "olmoe, normed": ("olmoe", {"norm_topk_prob": True}, "does not make .* norm_topk_prob true"),
    "olmoe, grouped": ("olmoe", {"num_key_value_heads": 2}, "as many key/value heads as heads"),
    "qwen2_moe, normed": ("qwen2_moe", {"norm_topk_prob": True}, "norm_topk_prob true"),
    "qwen2_moe, dense": ("qwen2_moe", {"mlp_only_layers": [1]}, "a dense MLP in layer 1"),
    "dots1, grouped": ("dots1", {"num_key_value_heads": 2}, "--host step35"),
    "ernie4_5_moe, ends": (
        "ernie4_5_moe",
        {"num_hidden_layers": 3, "moe_layer_end_index": 1},
        "moe_layer_end_index 1",
    ),
    "ernie4_5_moe, biases": (
        "ernie4_5_moe",
        {"use_bias": True},
        "a bias on the output|no place for a bias on",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_its_graph_fixes_is_refused(case: str, tmp_path: Path) -> None:
    family, config, text = REFUSED[case]
    source = save(tmp_path / "model", family, **config)
    with pytest.raises(CannotExpress, match=text) as refusal:
        convert(source, tmp_path / "out.gguf")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out.gguf").exists()
