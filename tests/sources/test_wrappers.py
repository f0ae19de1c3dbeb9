"""The text model inside a multimodal checkpoint: its logits are those of the wrapper's own class in
transformers, bit for bit, and nothing is dropped that no name covers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv import api, registry
from ropeconv.errors import RopeconvError
from ropeconv.extend import ScalingRequest
from ropeconv.prepare import prepare
from tests.command_line import refused, report, run
from tests.families import random_ids
from tests.sources import wrapper_models as wm

pytestmark = pytest.mark.torch
IDS = random_ids(2 * wm.L)
PI = ScalingRequest(kind="linear", factor=4)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("wrappers")
    return {name: wm.save(root / name.replace(" ", "-"), name) for name in wm.WRAPPED}


@pytest.fixture
def copy(saved: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a wrapper's checkpoint, to be edited."""

    def make(name: str) -> Path:
        import shutil

        return Path(shutil.copytree(saved[name], tmp_path / "model"))

    return make


def write(source: Path, out: Path, **options: Any) -> api.Conversion:
    return api.convert(source, "safetensors", out, **options)


def same_logits(source: Path, out: Path) -> bool:
    return np.array_equal(wm.text_logits(out, IDS), wm.wrapper_logits(source, IDS))


@pytest.mark.parametrize("form", ["as saved", "the other form"])
@pytest.mark.parametrize("name", wm.WRAPPED)
def test_the_written_folder_is_the_text_model(
    name: str, form: str, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    wrapped, source = wm.WRAPPED[name], copy(name)
    if form != "as saved":
        wm.rename(source, wrapped.other)
    done = write(source, tmp_path / "out")
    checkpoint = done.model.checkpoint
    assert (done.model.arch.name, checkpoint.wrapper) == (wrapped.family, wrapped.model_type)
    assert set(checkpoint.left_out) == wrapped.left_out
    assert same_logits(source, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model_type"] == wrapped.family
    assert not [key for key in config if key.endswith(("_config", "token_index"))]


@pytest.mark.parametrize("name", wm.WRAPPED)
def test_every_tensor_is_written_or_counted(name: str, saved: dict[str, Path]) -> None:
    from safetensors import safe_open

    found = prepare(saved[name], None)
    with safe_open(saved[name] / "model.safetensors", framework="np") as file:
        stored = len(list(file.keys()))
    assert len(found.weights) + sum(found.checkpoint.left_out.values()) == stored


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """As the hub has Qwen2-VL's: the text model's keys beside the others, in the older spelling."""
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    text = {key: value for key, value in text.items() if key != "model_type"}
    scaling = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    return config | text | {"rope_theta": rope["rope_theta"], "rope_scaling": scaling}


def flat_yarn(config: dict[str, Any]) -> dict[str, Any]:
    """With the YaRN that Qwen2.5-VL's page tells its users to write."""
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": wm.L // 4}
    config = flat(config)
    return config | {"rope_scaling": config["rope_scaling"] | yarn}


@pytest.mark.parametrize("form", [flat, flat_yarn])
@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl"])
def test_a_config_without_text_config(
    name: str, form: Any, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    source = copy(name)
    wm.edit_config(source, form)
    write(source, tmp_path / "out")
    assert same_logits(source, tmp_path / "out")


def without_text_keys(config: dict[str, Any]) -> dict[str, Any]:
    """What published configs leave to the class: only sizes are stated."""
    sizes = {
        key: value
        for key, value in wm.TEXT.items()
        if key not in ("max_position_embeddings", "initializer_range", "pad_token_id")
    }
    sizes["num_hidden_layers"] = config["text_config"]["num_hidden_layers"]
    text = config["text_config"]
    stated = ("model_type", "head_dim", "sliding_window", "query_pre_attn_scalar")
    kept = {key: text[key] for key in stated if key in text}
    sections = {key: text["rope_parameters"].get(key) for key in ("mrope_section",)}
    if sections["mrope_section"] is not None:
        kept["rope_parameters"] = {"rope_type": "default"} | sections
    return config | {"text_config": sizes | kept}


CLASS_FILLED = ("gemma3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")


@pytest.mark.parametrize("name", CLASS_FILLED)
def test_what_the_wrappers_class_fills_in(
    name: str, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    from transformers import AutoConfig

    source = copy(name)
    wm.edit_config(source, without_text_keys)
    write(source, tmp_path / "out")
    assert same_logits(source, tmp_path / "out")
    theirs = AutoConfig.from_pretrained(source).text_config
    mine = AutoConfig.from_pretrained(tmp_path / "out")
    for key in ("max_position_embeddings", "bos_token_id", "eos_token_id", "rms_norm_eps"):
        assert getattr(mine, key, None) == getattr(theirs, key, None), key


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_another_default_would_be_seen(
    name: str, copy: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault of the comparison above: the family's own base for the wrapper's."""
    source = copy(name)
    wm.edit_config(source, without_text_keys)
    wrappers = dict(registry.wrappers())
    own = {**wrappers[name].defaults, "rope_theta": 10000.0}
    wrappers[name] = replace(wrappers[name], defaults=own)
    monkeypatch.setattr(registry, "wrappers", lambda: wrappers)
    write(source, tmp_path / "out")
    assert not same_logits(source, tmp_path / "out")


TIES: dict[str, dict[str, Any]] = {
    "said outside": {"tie_word_embeddings": True},
    "denied outside": {"tie_word_embeddings": False},
    "not said, and mistral3 ties": {},
    "not said, with a head of its own": {"head": True},
}


@pytest.mark.parametrize("tie", TIES)
def test_the_outer_config_says_whether_the_head_is_the_embedding(tie: str, tmp_path: Path) -> None:
    said = dict(TIES[tie])
    own_head = said.pop("head", False)
    apart = own_head or said.get("tie_word_embeddings") is False
    source = wm.save(tmp_path / "model", "mistral3", tie_word_embeddings=not apart)

    def edit(config: dict[str, Any]) -> dict[str, Any]:
        del config["tie_word_embeddings"]
        config["text_config"]["tie_word_embeddings"] = apart  # the other answer: nobody reads it
        return config | said

    wm.edit_config(source, edit)
    done = write(source, tmp_path / "out")
    assert done.model.stack.tied is not apart
    assert same_logits(source, tmp_path / "out")


def test_an_older_config_of_qwen_ties_inside(copy: Callable[[str], Path], tmp_path: Path) -> None:
    source = wm.save(tmp_path / "tied", "qwen2_vl", tie_word_embeddings=True)

    def edit(config: dict[str, Any]) -> dict[str, Any]:
        del config["tie_word_embeddings"]
        config["text_config"]["tie_word_embeddings"] = True
        return config

    wm.edit_config(source, edit)
    assert write(source, tmp_path / "out").model.stack.tied
    assert same_logits(source, tmp_path / "out")


def add_tensor(folder: Path, *names: str, like: str) -> None:
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors |= {name: tensors[like].copy() for name in names}
    save_file(tensors, path, metadata={"format": "pt"})


NORM = "language_model.model.norm.weight"
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a tensor of no part": (
        lambda path: add_tensor(path, "adapter.weight", like=NORM),
        "1 tensor that gemma3_text has no place for: adapter.weight",
    ),
    "a tensor under two names": (
        lambda path: add_tensor(path, "model.language_model.norm.weight", like=NORM),
        "model.norm.weight of the text model is there under two names",
    ),
    "a key of nobody beside text_config": (
        lambda path: wm.edit_config(path, lambda config: config | {"logit_bias": 2}),
        "config.json has logit_bias, which ropeconv does not read for gemma3_text",
    ),
    "a key of nobody inside": (
        lambda path: wm.edit_config(
            path, lambda c: c | {"text_config": c["text_config"] | {"x": 1}}
        ),
        "config.json has x, which ropeconv does not read for gemma3_text",
    ),
    "a cap that its class leaves out": (
        lambda path: wm.edit_config(
            path,
            lambda c: c | {"text_config": c["text_config"] | {"final_logit_softcapping": 30.0}},
        ),
        "final_logit_softcapping 30.0, which transformers' Gemma3ForConditionalGeneration does not",
    ),
    "another head than a language model's": (
        lambda path: wm.edit_config(
            path, lambda c: c | {"architectures": ["Gemma3ForSequenceClassification"]}
        ),
        "Gemma3ForSequenceClassification is not a gemma3_text causal language model",
    ),
    "quantised weights": (
        lambda path: wm.edit_config(
            path, lambda c: c | {"quantization_config": {"quant_method": "fp8"}}
        ),
        "quantization_config says that the weights are in FP8, and none is",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_nobody_knows_is_refused(case: str, copy: Callable[[str], Path]) -> None:
    edit, reason = REFUSED[case]
    source = copy("gemma3")
    edit(source)
    with pytest.raises(RopeconvError) as caught:
        prepare(source, None)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_llama4_is_refused_with_its_reason(tmp_path: Path, capsys: Any) -> None:
    from tests.checkpoints import save_checkpoint

    source = save_checkpoint(tmp_path / "model", "llama", context=wm.L)
    wm.edit_config(source, lambda c: {"model_type": "llama4", "text_config": c})
    line = refused(["gguf", str(source), "-o", str(tmp_path / "out.gguf")], capsys)
    assert "RoPE acts only inside chunks of the text" in line
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.llama
@pytest.mark.parametrize("target", ["gguf", "onnx", "safetensors"])
@pytest.mark.parametrize("name", ["gemma3", "mistral3 of ministral3"])
def test_conversion_and_proof_find_the_text_model(
    name: str, target: str, saved: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / ("out.gguf" if target == "gguf" else "out")
    floats = {"gguf": ["--type", "F32"], "onnx": ["--type", "fp32"], "safetensors": []}[target]
    scaling = ["--pi-factor", "4"] if name == "gemma3" else []
    facts = report([target, str(saved[name]), "-o", str(out), *scaling, *floats], capsys)
    assert facts["wrapper"] == wm.WRAPPED[name].model_type
    assert set(facts["left_out"]) == {"vision", "projector"}
    proved = api.verify(out, tokens=wm.L + (80 if scaling else 0))
    assert proved.ok, proved.verdict
    assert proved.family == wm.WRAPPED[name].family


def test_reports_say_what_was_left_out(saved: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    source = str(saved["gemma3"])
    line = "left out    projector (2 tensors), vision (48 tensors)"
    told, _ = run(["safetensors", source, "-o", str(tmp_path / "out")], capsys)
    assert line in told
    assert "gemma3_text (the text model of gemma3)" in told
    told, _ = run(["inspect", source], capsys)
    assert "projector (2 tensors), vision (48 tensors)" in told
    link = ["safetensors", source, "--link", "-o", str(tmp_path / "linked")]
    assert "--link needs weights that stay as they are" in refused(link, capsys)
