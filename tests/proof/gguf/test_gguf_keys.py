"""Keys of a GGUF file that its model has no need of, or that say another number: each is named, and
sound files have none, be they written here or as llama.cpp's own converter writes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ropeconv import registry
from ropeconv.api import convert
from ropeconv.extend import ScalingRequest
from ropeconv.proof.structure import find_expected, structure_findings
from tests.checkpoints import VOCAB, add_tokenizer
from tests.families import FAMILIES, extra, make_model
from tests.proof.conftest import LINEAR_KEYS, Sound
from tests.to_gguf.gguf_edits import edit

L, THETA = 256, 20000.0
YARN_KEYS = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
REQUESTS = {
    "as it is": None,
    "linear": ScalingRequest(kind="linear", factor=4.0),
    "yarn": ScalingRequest(kind="yarn", factor=4.0),
}


def findings(path: Path) -> list[str]:
    """What the structure rung says; nothing is run."""
    target = registry.targets()["gguf"]
    artefact = target.open_artefact(path)
    expected = find_expected(artefact, reference=None, request=None)
    found = structure_findings(artefact, expected, target=target)
    return [*found.blocking, *found.others]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """family -> its tiny checkpoint, made once."""
    made: dict[str, Path] = {}

    def source(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp("source")  # llama.cpp reads rules out of names
            ids = {"bos_token_id": 0, "eos_token_id": 0}
            rope = {"rope_type": "default", "rope_theta": THETA}
            words = {**extra(family), **ids, "vocab_size": VOCAB}
            make_model(family, rope, context=L, **words).save_pretrained(folder)
            made[family] = add_tokenizer(folder)
        return made[family]

    return source


# families that llama.cpp has an architecture for without being asked
HOUSED = [family for family in FAMILIES if family not in {"cwm", "ministral", "persimmon"}]


@pytest.mark.parametrize("family", HOUSED)
def test_written_files_have_no_key_too_many(family: str, sources: Any, tmp_path: Path) -> None:
    for name, request in REQUESTS.items():
        out = tmp_path / f"{name.replace(' ', '-')}.gguf"
        convert(sources(family), "gguf", out, scaling=request)
        assert findings(out) == [], name
        again = tmp_path / "again.gguf"  # and what was a GGUF file already
        convert(out, "gguf", again, force=True)
        assert findings(again) == [], name


# family -> keys that llama.cpp's converter writes for it and nothing here does, and the habits of
# older ones; every one of them changes nothing
HABITS: dict[str, dict[str, Any]] = {
    "llama": {
        "vocab_size": VOCAB,
        "attention.key_length": 16,
        "attention.value_length": 16,
        "expert_count": 0,
        "attention.causal": True,
        "rope.scaling.finetuned": True,
        "tensor_data_layout": "Meta AI original pth",
    },
    "phi3": {"attention.sliding_window": 262144},
    "qwen3": {"attention.sliding_window": 0},
    "gemma3_text": {"rope.freq_base_swa": 10000.0, "attention.sliding_window_pattern": 6},
    "qwen3_moe": {"expert_weights_scale": 1.0},
}


@pytest.mark.parametrize("family", HABITS)
def test_keys_of_other_writers_pass(family: str, make_sound: Any, tmp_path: Path) -> None:
    sound: Sound = make_sound(family, "linear", LINEAR_KEYS)
    assert findings(sound.gguf.write(tmp_path / "plain.gguf")) == []
    path = sound.changed(keys=HABITS[family]).gguf.write(tmp_path / "habits.gguf")
    assert findings(path) == []


def test_yarn_keys_that_say_what_the_model_says_pass(make_sound: Any, tmp_path: Path) -> None:
    words = {"yarn_beta_fast": 32.0, "yarn_beta_slow": 1.0, "yarn_ext_factor": 1.0}
    keys = {f"rope.scaling.{name}": value for name, value in words.items()}
    sound: Sound = make_sound("llama", "yarn", YARN_KEYS | keys)
    assert findings(sound.gguf.write(tmp_path / "t.gguf")) == []
    for name, value in {"yarn_beta_fast": 16.0, "yarn_ext_factor": 0.0}.items():
        key = f"rope.scaling.{name}"
        wrong = sound.changed(keys={key: value}).gguf.write(tmp_path / "w.gguf")
        assert findings(wrong) == [f"llama.{key} ({value}) belongs to no part of the model"]


# (family, key, value) that llama.cpp's loader passes over, or that its logits hide
STRAYS: list[tuple[str, str, Any]] = [
    ("llama", "attention.scale", 0.1),
    ("llama", "attention.sliding_window", 64),
    ("llama", "attention.causal", False),
    ("llama", "attn_logit_softcapping", 50.0),
    ("llama", "final_logit_softcapping", 30.0),
    ("llama", "logit_scale", 0.5),
    ("llama", "residual_scale", 0.5),
    ("llama", "expert_used_count", 2),
    ("llama", "rope.freq_base_swa", 10000.0),
    ("llama", "rope.scale_linear", 2.0),
    ("llama", "rope.scaling.alpha", 8.0),
    ("llama", "rope.scaling.yarn_beta_fast", 16.0),
    ("llama", "rope.scaling.yarn_ext_factor", 1.0),
    ("llama", "rope.scaling.yarn_attn_factor", 1.2),
    ("llama", "rope.scaling.yarn_log_multiplier", 0.1),
    ("qwen3", "attention.sliding_window", 64),
    ("qwen3", "pooling_type", 4),
    ("qwen3_moe", "expert_shared_count", 1),
    ("gemma3_text", "attn_logit_softcapping", 50.0),
    ("gemma3_text", "final_logit_softcapping", 30.0),
    ("phi3", "attention.sliding_window", 512),
]


@pytest.mark.parametrize(("family", "key", "value"), STRAYS)
def test_a_key_too_many_is_named(
    family: str, key: str, value: Any, make_sound: Any, tmp_path: Path
) -> None:
    sound: Sound = make_sound(family, "linear", LINEAR_KEYS)
    found = findings(sound.changed(keys={key: value}).gguf.write(tmp_path / "t.gguf"))
    assert any(f".{key} ({value}) belongs to no part of the model" in line for line in found), found


# (family, key, value) of keys that belong, with another number than the model's
NUMBERS: list[tuple[str, str, Any]] = [
    ("llama", "vocab_size", VOCAB + 1),
    ("llama", "attention.value_length", 8),
    ("llama", "attention.layer_norm_rms_epsilon", 1.1e-6),
    ("gemma3_text", "attention.sliding_window", 65),
    ("gemma3_text", "attention.sliding_window_pattern", 3),
    ("gpt_neox", "use_parallel_residual", False),
    ("qwen3_moe", "expert_used_count", 1),
]


@pytest.mark.parametrize(("family", "key", "value"), NUMBERS)
def test_another_number_is_named(
    family: str, key: str, value: Any, make_sound: Any, tmp_path: Path
) -> None:
    sound: Sound = make_sound(family, "linear", LINEAR_KEYS)
    found = findings(sound.changed(keys={key: value}).gguf.write(tmp_path / "t.gguf"))
    assert any(f".{key} is " in line and "the model's is" in line for line in found), found


def test_an_idle_factor_and_another_architectures_key_are_named(
    sources: Any, tmp_path: Path
) -> None:
    convert(sources("llama"), "gguf", tmp_path / "plain.gguf")
    idle = {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0}
    assert findings(edit(tmp_path / "plain.gguf", tmp_path / "idle.gguf", idle)) == [
        "llama.rope.scaling.factor (4.0) belongs to no part of the model"
    ]
    foreign = {"qwen2.attention.scale": 0.1}
    (line,) = findings(edit(tmp_path / "plain.gguf", tmp_path / "foreign.gguf", foreign))
    assert line.startswith("qwen2.attention.scale (0.1")
    assert line.endswith(" belongs to another architecture")


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_a_rotary_table_without_a_place_is_named(
    family: str, make_sound: Any, tmp_path: Path
) -> None:
    import numpy as np

    sound: Sound = make_sound(family, "linear", LINEAR_KEYS)
    table = {"rope_freqs.weight": np.ones(8, np.float32)}
    found = findings(sound.changed(tensors=table).gguf.write(tmp_path / "t.gguf"))
    assert any("rope_freqs.weight has no place" in line for line in found)
