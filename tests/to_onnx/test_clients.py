"""Greedy text of three clients against transformers, from the folder that the command wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import save_checkpoint
from tests.families import CONFIGS
from tests.methods import THETA, L
from tests.to_onnx.clients import CLIENTS, Client, convert, job, transformers_ids, trim

pytestmark = pytest.mark.node

LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": THETA}
PROMPTS = ["The lambda expression yields a function object.", "def", "Names refer to objects. " * 4]
TOKENS = 24
# What optimum-onnx 0.1.0 cannot run, whoever wrote the folder, and the words it fails with: it
# takes a Phi-3's query heads for its key/value heads (modeling_decoder.py), so it runs only those
# that have as many.
# Families whose key/value heads optimum counts as it counts the heads.
MISCOUNTED = "past_key_values.1.key for the following indices\n index: 1 Got: 4 Expected: 2"
OPTIMUM_CANNOT = dict.fromkeys(("phi3", "seed_oss"), MISCOUNTED)
# transformers.js chooses its class by the model_type, and ends with the first that it has none for.
NODE_LACKS = {"seed_oss"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Path, Path]]:
    """(family, profile) -> checkpoint and its folder, four times longer by PI."""
    made: dict[tuple[str, str], tuple[Path, Path]] = {}

    def make(family: str, profile: str) -> tuple[Path, Path]:
        if (family, profile) not in made:
            base = tmp_path_factory.mktemp(f"{family}-{profile}")
            source = save_checkpoint(base / "source", family, context=L)
            made[family, profile] = (
                source,
                convert(source, base / "onnx", "--pi-factor", "4", "--profile", profile),
            )
        return made[family, profile]

    return make


def linear_config(source: Path) -> dict[str, Any]:
    """The keys of config.json that say 4 times longer by PI, written by hand."""
    own = json.loads((source / "config.json").read_text())["rope_parameters"]
    theta = own.get("rope_theta") or own["full_attention"]["rope_theta"]
    rope: dict[str, Any] = {**LINEAR, "rope_theta": theta}
    if "partial_rotary_factor" in own:
        rope["partial_rotary_factor"] = own["partial_rotary_factor"]
    nested = "full_attention" in own
    return {
        "max_position_embeddings": 4 * L,
        "rope_parameters": {**own, "full_attention": rope} if nested else rope,
    }


@pytest.mark.parametrize("client", CLIENTS.values(), ids=lambda client: client.name)
@pytest.mark.parametrize("profile", ["ort", "standard"])
def test_every_family_generates_what_transformers_does(
    tiny: Any, profile: str, client: Client
) -> None:
    lacking = NODE_LACKS if client.name == "transformers.js" else set()
    folders = {family: tiny(family, profile) for family in CONFIGS if family not in lacking}
    prompts = PROMPTS if client.batches else PROMPTS[:1]
    answers = client.generate([job(out, prompts, tokens=TOKENS) for _, out in folders.values()])
    for (family, (source, _)), found in zip(folders.items(), answers, strict=True):
        excuse = OPTIMUM_CANNOT.get(family) if client.name == "optimum" else None
        if excuse is not None:
            assert excuse in found["error"], family
            continue
        wanted = transformers_ids(source, prompts, tokens=TOKENS, config=linear_config(source))
        assert "error" not in found, (family, found)
        assert found["prompt"] == wanted["prompt"], family
        assert [trim(ids, ends=[0]) for ids in found["ids"]] == wanted["ids"], family


@pytest.mark.parametrize("family", sorted(NODE_LACKS))
def test_transformers_js_has_no_class_for_some_families(tiny: Any, family: str) -> None:
    """The day that it has one, the family joins the others."""
    _, out = tiny(family, "ort")
    with pytest.raises(AssertionError, match=f"Unsupported model type: {family}"):
        CLIENTS["transformers.js"].generate([job(out, PROMPTS, tokens=TOKENS)])


def test_optimum_runs_a_phi3_whose_heads_it_counts_right(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "source", "phi3", context=L, num_key_value_heads=4)
    out = convert(source, tmp_path / "onnx", "--pi-factor", "4")
    (found,) = CLIENTS["optimum"].generate([job(out, PROMPTS, tokens=TOKENS)])
    wanted = transformers_ids(source, PROMPTS, tokens=TOKENS, config=linear_config(source))
    assert found["prompt"] == wanted["prompt"]
    assert [trim(ids, ends=[0]) for ids in found["ids"]] == wanted["ids"]


@pytest.mark.parametrize("kind", ["fp16", "int8", "int4"])
def test_clients_agree_on_the_smaller_types(tiny: Any, tmp_path: Path, kind: str) -> None:
    source, _ = tiny("llama", "ort")
    out = convert(source, tmp_path / kind, "--pi-factor", "4", "--type", kind)
    answers = [
        client.generate([job(out, PROMPTS[:1], tokens=TOKENS)])[0] for client in CLIENTS.values()
    ]
    assert "error" not in answers[0]
    assert answers == answers[:1] * len(answers)


@pytest.mark.parametrize("client", CLIENTS.values(), ids=lambda client: client.name)
def test_another_scaling_makes_another_text(tiny: Any, tmp_path: Path, client: Client) -> None:
    """The comparison can fail: the same weights with a factor of 3 do not give the text of a factor
    of 4.
    """
    source, _ = tiny("llama", "ort")
    wrong = convert(source, tmp_path / "wrong", "--pi-factor", "3")
    prompt = PROMPTS[-1:]
    (found,) = client.generate([job(wrong, prompt, tokens=TOKENS)])
    assert (
        found["ids"]
        != transformers_ids(source, prompt, tokens=TOKENS, config=linear_config(source))["ids"]
    )


@pytest.fixture(scope="module")
def long_smollm2(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct, four times longer, float32."""
    return convert(smollm2, tmp_path_factory.mktemp("long") / "smollm2", "--pi-factor", "4")


@pytest.mark.parametrize("client", CLIENTS.values(), ids=lambda client: client.name)
def test_smollm2_writes_the_same_64_tokens(
    smollm2: Path, long_smollm2: Path, client: Client
) -> None:
    prompt = ["<|im_start|>user\nTell me about the sea.<|im_end|>\n<|im_start|>assistant\n"]
    (found,) = client.generate([job(long_smollm2, prompt, tokens=64)])
    config = {
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100000.0},
    }
    assert found == transformers_ids(smollm2, prompt, tokens=64, config=config)
