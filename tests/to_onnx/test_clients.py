"""Greedy text of three clients against transformers, from the folder that the command wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from converters.to_onnx.client.gaps import client_gaps
from ropeconv.prepare import prepare
from tests.checkpoints import save_checkpoint, with_config
from tests.grid_report import SAMPLE
from tests.methods import THETA, L
from tests.to_onnx.clients import CLIENTS, Client, convert, job, transformers_ids, trim

pytestmark = pytest.mark.node

LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": THETA}
PROMPTS = ["The lambda expression yields a function object.", "def", "Names refer to objects. " * 4]
SEA = "<|im_start|>user\nTell me about the sea.<|im_end|>\n<|im_start|>assistant\n"
TOKENS = 24
# families whose graphs have every kind of node that ropeconv writes
KINDS = (
    *SAMPLE,
    *("apertus", "cohere", "falcon", "gemma2", "granite", "gpt_oss", "hunyuan_v1_dense"),
    *("ministral3", "olmo", "phi", "qwen3_moe", "starcoder2"),
    *("ernie4_5_moe", "hy_v3", "qwen2_moe", "solar_open", "lfm2", "deepseek_v3"),
)
# what a class reads in its rope_parameters beside the rope
KEPT = ("partial_rotary_factor", "llama_4_scaling_beta", "original_max_position_embeddings")
# Words with which a client fails on a folder that it cannot run, whoever wrote it.
FAILURES = {
    "optimum": (
        "Got invalid dimensions for input: past_key_values",
        "Transformers does not recognize this architecture",
        "layer_types must be a list strings in",
        "is required by model but not provided",
    ),
    "transformers.js": (
        "Unsupported model type: ",
        "reading 'spatial_merge_size'",
        "Missing the following inputs: past_key_values.0.key",
    ),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Path, Path]]:
    """(family, profile) -> checkpoint and its folder, four times longer by PI."""
    sources: dict[str, Path] = {}
    made: dict[tuple[str, str], Path] = {}

    def make(family: str, profile: str) -> tuple[Path, Path]:
        if family not in sources:
            base = tmp_path_factory.mktemp(family)
            sources[family] = save_checkpoint(base / "source", family, context=L)
        source = sources[family]
        if (family, profile) not in made:
            out = source.parent / profile
            scaled = ("--pi-factor", "4", "--profile", profile)
            made[family, profile] = convert(source, out, *scaled)
        return source, made[family, profile]

    return make


@pytest.fixture(scope="module")
def wanted_ids() -> Callable[[Path, list[str]], dict[str, Any]]:
    """(checkpoint, prompts) -> what transformers generates 4 times longer by PI, once for all
    clients and profiles.
    """

    @cache
    def generate(source: Path, prompts: tuple[str, ...]) -> dict[str, Any]:
        return transformers_ids(source, prompts, tokens=TOKENS, config=linear_config(source))

    return lambda source, prompts: generate(source, tuple(prompts))


def linear_config(source: Path) -> dict[str, Any]:
    """The keys of config.json that say 4 times longer by PI, written by hand."""
    own = json.loads((source / "config.json").read_text())["rope_parameters"]
    theta = own.get("rope_theta") or own["full_attention"]["rope_theta"]
    rope: dict[str, Any] = {**LINEAR, "rope_theta": theta}
    nested = "full_attention" in own
    kept = {key: own[key] for key in KEPT if key in own}
    return {
        "max_position_embeddings": 4 * L,
        "rope_parameters": {**own, "full_attention": rope} if nested else {**rope, **kept},
    }


@pytest.mark.parametrize("client", CLIENTS.values(), ids=lambda client: client.name)
@pytest.mark.parametrize("profile", ["ort", "standard"])
def test_every_kind_of_graph_generates_what_transformers_does(
    tiny: Any, wanted_ids: Any, profile: str, client: Client
) -> None:
    """Or fails in the words known, where a note of the conversion says that it cannot."""
    folders = {family: tiny(family, profile) for family in KINDS}
    prompts = PROMPTS if client.batches else PROMPTS[:1]
    answers = client.generate([job(out, prompts, tokens=TOKENS) for _, out in folders.values()])
    for (family, (source, _)), found in zip(folders.items(), answers, strict=True):
        if has_gap(source, client):
            words = FAILURES[client.name]
            assert any(word in found.get("error", "none") for word in words), (family, found)
            continue
        wanted = wanted_ids(source, prompts)
        assert "error" not in found, (family, found)
        assert found["prompt"] == wanted["prompt"], family
        pairs = zip(found["ids"], wanted["ids"], strict=True)
        assert all(trim(mine, ends=[0]) == trim(theirs, ends=[0]) for mine, theirs in pairs), family


def has_gap(source: Path, client: Client) -> bool:
    """Whether a note says that the client cannot run a checkpoint's folder."""
    model = prepare(source, None)
    finding = client_gaps(model.checkpoint.config, model.stack)
    return finding is not None and any(name.startswith(client.name) for name in finding.effects)


def test_transformers_js_runs_a_granite_4_as_it_is_published(tmp_path: Path) -> None:
    layers = {"layer_types": ["attention"] * 2}
    source = save_checkpoint(tmp_path / "source", "granitemoehybrid", context=L)
    source = with_config(source, tmp_path / "published", **layers)
    out = convert(source, tmp_path / "onnx", "--pi-factor", "4")
    (found,) = CLIENTS["transformers.js"].generate([job(out, PROMPTS, tokens=TOKENS)])
    wanted = transformers_ids(source, PROMPTS, tokens=TOKENS, config=linear_config(source))
    assert found["prompt"] == wanted["prompt"]
    assert [trim(ids, ends=[0]) for ids in found["ids"]] == [
        trim(ids, ends=[0]) for ids in wanted["ids"]
    ]


def test_optimum_runs_a_phi3_whose_heads_it_counts_right(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "source", "phi3", context=L, num_key_value_heads=4)
    out = convert(source, tmp_path / "onnx", "--pi-factor", "4")
    (found,) = CLIENTS["optimum"].generate([job(out, PROMPTS, tokens=TOKENS)])
    wanted = transformers_ids(source, PROMPTS, tokens=TOKENS, config=linear_config(source))
    assert found["prompt"] == wanted["prompt"]
    assert [trim(ids, ends=[0]) for ids in found["ids"]] == [
        trim(ids, ends=[0]) for ids in wanted["ids"]
    ]


@pytest.mark.parametrize("kind", ["fp16", "int8", "int4", "q4f16"])
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


@pytest.fixture(scope="module")
def about_the_sea(smollm2: Path) -> Any:
    """What transformers answers to SEA."""
    config = {
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100000.0},
    }
    return transformers_ids(smollm2, [SEA], tokens=64, config=config)


@pytest.mark.parametrize("client", CLIENTS.values(), ids=lambda client: client.name)
def test_smollm2_writes_the_same_64_tokens(
    about_the_sea: Any, long_smollm2: Path, client: Client
) -> None:
    (found,) = client.generate([job(long_smollm2, [SEA], tokens=64)])
    assert found == about_the_sea
