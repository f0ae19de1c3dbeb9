"""What the texts beside a graph tell its clients, each with its fault; and the notes of a folder
whose table changes on the way.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ropeconv.extend import ScalingRequest
from ropeconv.proof.report import FAIL
from ropeconv.proof.run import open_any, verify
from ropeconv.proof.structure import find_expected, structure_findings
from tests.checkpoints import save_checkpoint
from tests.to_onnx.onnx_folders import convert

L = 64
PI = ScalingRequest(kind="linear", factor=4)
GENAI, CONFIG, GENERATION = "genai_config.json", "config.json", "generation_config.json"
GONE: Any = object()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clients")
    source = save_checkpoint(root / "model", "llama", context=L)
    for profile in ("ort", "standard"):
        convert(source, root / profile, PI, profile=profile)
    return root


def lines(out: Path, source: Path) -> list[str]:
    """The structure rung's."""
    target, artefact = open_any(out)
    expected = find_expected(artefact, reference=source, request=None)
    found = structure_findings(artefact, expected, target=target)
    return [*found.blocking, *found.others]


def put(name: str, place: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Another value in a JSON file; GONE takes it away. place: keys with dots between them."""

    def plant(out: Path) -> None:
        values = json.loads((out / name).read_text())
        *way, last = place.split(".") if "|" not in place else place.split("|")
        inner = values
        for key in way:
            inner = inner[key]
        new = change(inner.get(last))
        if new is GONE:
            del inner[last]
        else:
            inner[last] = new
        (out / name).write_text(json.dumps(values))

    return plant


def plus(more: int) -> Callable[[Any], Any]:
    return lambda value: value + more


def becomes(value: Any) -> Callable[[Any], Any]:
    return lambda _: value


DECODER = "model.decoder."
FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "context_length": (
        put(GENAI, "model.context_length", becomes(L)),
        "context_length is 64, the model's is 256",
    ),
    "max_length": (
        put(GENAI, "search.max_length", becomes(L)),
        "search.max_length is 64, the model's is 256",
    ),
    "type": (put(GENAI, "model.type", becomes("phi3")), "type is 'phi3', the model's is 'decoder'"),
    "vocab_size": (
        put(GENAI, "model.vocab_size", plus(1)),
        "vocab_size is 385, the model's is 384",
    ),
    "eos": (put(GENAI, "model.eos_token_id", becomes(1)), "eos_token_id is 1, the model's is 0"),
    "bos": (put(GENAI, "model.bos_token_id", becomes(2)), "bos_token_id is 2, the model's is 0"),
    "pad": (put(GENAI, "model.pad_token_id", becomes(2)), "pad_token_id is 2, the model's is 0"),
    "head_size": (put(GENAI, f"{DECODER}head_size", plus(1)), "head_size is 17, the model's is 16"),
    "hidden_size": (
        put(GENAI, f"{DECODER}hidden_size", plus(1)),
        "decoder.hidden_size is 65, the model's is 64",
    ),
    "heads": (
        put(GENAI, f"{DECODER}num_attention_heads", plus(1)),
        "num_attention_heads is 5, the model's is 4",
    ),
    "kv heads": (
        put(GENAI, f"{DECODER}num_key_value_heads", plus(2)),
        "num_key_value_heads is 4, the model's is 2",
    ),
    "layers": (
        put(GENAI, f"{DECODER}num_hidden_layers", plus(1)),
        "num_hidden_layers is 3, the model's is 2",
    ),
    "file": (put(GENAI, f"{DECODER}filename", becomes("model.onnx")), "filename is 'model.onnx'"),
    "a window": (
        put(GENAI, f"{DECODER}sliding_window", becomes({"window_size": 128})),
        "decoder.sliding_window ({'window_size': 128}) belongs to no part of the model",
    ),
    "past names": (
        put(GENAI, f"{DECODER}inputs.past_key_names", becomes("past.%d.key")),
        "past_key_names is 'past.%d.key', but the graph has no input past.0.key",
    ),
    "positions not named": (
        put(GENAI, f"{DECODER}inputs.position_ids", becomes(GONE)),
        "input position_ids of the graph has no name there (1 in all)",
    ),
    "output names": (
        put(GENAI, f"{DECODER}outputs.logits", becomes("scores")),
        "logits is 'scores', but the graph has no output scores",
    ),
    "no file for genai": (lambda out: (out / GENAI).unlink(), "no genai_config.json"),
    "config: hidden_size": (
        put(CONFIG, "hidden_size", plus(64)),
        "config.json says (384, 128)",
    ),
    "config: vocab_size": (
        put(CONFIG, "vocab_size", plus(1)),
        "config.json says (385, 64)",
    ),
    "config: tied": (
        put(CONFIG, "tie_word_embeddings", becomes(True)),
        "config.json says tie_word_embeddings, and lm_head.weight differs",
    ),
    "config: factor": (
        put(CONFIG, "rope_parameters.factor", becomes(2.0)),
        "its rotary embedding of full_attention turns otherwise",
    ),
    "config: theta": (
        put(CONFIG, "rope_parameters.rope_theta", becomes(10000.0)),
        "its rotary embedding of full_attention turns otherwise",
    ),
    "config: length": (
        put(CONFIG, "max_position_embeddings", becomes(L)),
        "context length is 64, the scaled model's is 256",
    ),
    "config: head_dim": (
        put(CONFIG, "head_dim", becomes(GONE)),
        "config.json: head_dim is missing, which transformers.js goes by",
    ),
    "config: cache type": (
        put(CONFIG, "transformers.js_config|kv_cache_dtype", becomes("float16")),
        "config.json: transformers.js_config is",
    ),
    "generation: eos": (
        put(GENERATION, "eos_token_id", becomes(1)),
        "generation_config.json: eos_token_id is 1, the source's is 0",
    ),
}


@pytest.mark.parametrize("profile", ["ort", "standard"])
def test_a_sound_folder_has_no_line(profile: str, folders: Path) -> None:
    assert lines(folders / profile, folders / "model") == []


@pytest.mark.parametrize("name", FAULTS)
def test_what_a_client_is_told_wrong_is_a_line(name: str, folders: Path, tmp_path: Path) -> None:
    plant, words = FAULTS[name]
    out = shutil.copytree(folders / "ort", tmp_path / "out")
    plant(out)
    found = lines(out, folders / "model")
    assert any(words in line for line in found), found
    assert all("\n" not in line for line in found)


def test_a_graph_that_cannot_share_its_buffers_must_not(folders: Path, tmp_path: Path) -> None:
    out = shutil.copytree(folders / "standard", tmp_path / "out")
    put(GENAI, "search.past_present_share_buffer", becomes(True))(out)
    (line,) = lines(out, folders / "model")
    assert "past_present_share_buffer is True, and the graph cannot share" in line


@pytest.mark.torch
def test_a_fault_in_a_text_turns_the_verdict(folders: Path, tmp_path: Path) -> None:
    out = shutil.copytree(folders / "ort", tmp_path / "out")
    put(GENAI, "model.context_length", becomes(L))(out)
    report = verify(out, reference=folders / "model", tokens=L)
    assert {rung.name for rung in report.rungs if rung.status == FAIL} == {"structure"}
    assert report.measured  # the graph itself is right, and is shown to be


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["fp16", "int4"])
def test_tables_of_every_type_are_read_to_the_rounding_of_theirs(
    kind: str, folders: Path, tmp_path: Path
) -> None:
    """A far row that is one step behind, past the text."""
    from tests.to_onnx.onnx_folders import writable

    convert(folders / "model", tmp_path / "out", PI, type=kind, bake="tables")
    assert verify(tmp_path / "out", reference=folders / "model", tokens=L).ok
    for part in ("cos", "sin"):
        table = writable(tmp_path / "out", f"rope.full_attention.{part}")
        table[230] = table[229]
    report = verify(tmp_path / "out", reference=folders / "model", tokens=L)
    (structure,) = (rung for rung in report.rungs if rung.status == FAIL)
    assert structure.findings == (
        "full_attention: table row 230 is not 230 steps of its frequencies (1 of 256 rows are not)",
    )
