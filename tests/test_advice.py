"""What a refusal advises, followed to the letter: the command then works, and the numbers are the
right ones.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.prepare import prepare
from tests.checkpoints import save_checkpoint, with_config
from tests.command_line import refused, report, run
from tests.to_gguf.gguf_edits import edit

L = 256
ORIGINAL = "llama.rope.scaling.original_context_length"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("source") / "model", "llama", context=L)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs without a name land here."""
    monkeypatch.chdir(tmp_path)


def frozen(message: str) -> list[str]:
    """The options that a refusal of dynamic scaling names."""
    found = re.search(r"with (--scaling ntk --factor \S+ --context \S+) \(", message)
    assert found is not None, message
    return shlex.split(found[1])


@pytest.mark.parametrize(("factor", "context"), [(4.0, 4 * L), (1.7, 435), (1.001, 2 * L)])
def test_dynamic_frozen_at_a_length(
    factor: float, context: int, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from transformers import AutoConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rope = {"rope_type": "dynamic", "rope_theta": 20000.0, "factor": factor}
    source = with_config(model, tmp_path / "dynamic", rope_parameters=rope)
    command = ["gguf", str(source), "-o", str(tmp_path / "out.gguf")]
    run([*command, *frozen(refused(command, capsys)), "--on-existing", "replace"], capsys)
    asked = ["gguf", str(model), "--scaling", "dynamic", "--factor", str(factor)]
    assert (
        report(["gguf", str(model), *frozen(refused(asked, capsys)), "--dry-run"], capsys)[
            "context"
        ]
        == context
    )
    module = LlamaRotaryEmbedding(AutoConfig.from_pretrained(source))
    module(torch.zeros(1), torch.arange(context)[None])
    found = prepare(tmp_path / "out.gguf", None).frequencies["full_attention"]
    assert found is not None
    assert np.allclose(found.inv_freq, module.inv_freq.tolist(), rtol=2e-6, atol=0)


def test_dynamic_on_a_long_model_is_told_in_whole_tokens(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = with_config(model, tmp_path / "long", max_position_embeddings=131072)
    options = frozen(refused(["gguf", str(long), "--scaling", "dynamic", "--factor", "12"], capsys))
    assert options[-1] == "1572864"
    assert report(["gguf", str(long), *options, "--dry-run"], capsys)["context"] == 1572864


@pytest.mark.parametrize("factor", ["1.3", "1.0001"])
def test_a_factor_that_gives_no_whole_number(
    factor: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = re.search(
        r"give (--context \d+) and no factor",
        refused(["gguf", str(model), "--pi-factor", factor], capsys),
    )
    assert told is not None
    report(["gguf", str(model), *told[1].split(), "--dry-run"], capsys)


def test_a_window_that_llama_cpp_ignores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    qwen = save_checkpoint(tmp_path / "qwen", "qwen2", context=L)
    keys = {
        "use_sliding_window": True,
        "max_window_layers": 1,
        "layer_types": ["full_attention", "sliding_attention"],
    }
    wide, narrow = (
        with_config(qwen, tmp_path / f"w{size}", sliding_window=size, **keys)
        for size in (2 * L, L // 2)
    )
    told = refused(["gguf", str(wide), "--pi-factor", "4"], capsys)
    assert (
        f"give --context {2 * L} or less, or take `ropeconv onnx` or `ropeconv "
        "safetensors`, which keep the window"
    ) in told
    report(["gguf", str(wide), "--context", str(2 * L), "--dry-run"], capsys)
    told = refused(["gguf", str(narrow), "--pi-factor", "4"], capsys)
    assert "; take `ropeconv onnx` or `ropeconv safetensors`, which keep the window" in told
    assert f"give --context {L // 2} or less" in refused(["gguf", str(narrow)], capsys)
    report(["gguf", str(narrow), "--context", str(L // 2), "--dry-run"], capsys)
    out = ["-o", str(tmp_path / "out"), "--dry-run"]
    for target in ("onnx", "safetensors"):
        report([target, str(narrow), *out], capsys)
        report([target, str(narrow), "--pi-factor", "4", *out], capsys)


def test_a_window_on_every_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mistral = save_checkpoint(tmp_path / "mistral", "mistral", context=L, sliding_window=2 * L)
    told = refused(["gguf", str(mistral), "--pi-factor", "4"], capsys)
    assert (
        f"; give --context {2 * L} or less, or set sliding_window to null in config.json if" in told
    )
    report(["gguf", str(mistral), "--context", str(2 * L), "--dry-run"], capsys)
    narrow = with_config(mistral, tmp_path / "narrow", sliding_window=L)
    told = refused(["gguf", str(narrow), "--pi-factor", "4"], capsys)
    assert "; set sliding_window to null in config.json if the model was trained without it" in told
    config = json.loads((narrow / "config.json").read_text())
    (narrow / "config.json").write_text(json.dumps(config | {"sliding_window": None}))
    report(["gguf", str(narrow), "--pi-factor", "4", "--dry-run"], capsys)


def scaled_gguf(model: Path, out: Path, capsys: pytest.CaptureFixture[str], *options: str) -> Path:
    """A scaled file that does not say its trained length, as other converters write it."""
    plain = out.with_name("plain.gguf")
    run(["gguf", str(model), "--type", "F32", *options, "-o", str(plain)], capsys)
    return edit(plain, out, {ORIGINAL: None, "ropeconv.provenance": None})


LLAMA3 = [
    "--scaling",
    "llama3",
    "--factor",
    "4",
    "--set",
    "low_freq_factor=1",
    "--set",
    "high_freq_factor=4",
]


@pytest.mark.parametrize("options", [LLAMA3, ["--pi-factor", "4"]], ids=["table", "linear"])
def test_a_gguf_file_without_its_trained_length(
    options: list[str], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = scaled_gguf(model, tmp_path / "in.gguf", capsys, *options)
    command = ["gguf", str(source), "--yarn-factor", "8", "--on-existing", "replace"]
    told = refused(command, capsys)
    assert told.endswith(
        f"has no {ORIGINAL}, so its trained context is not known; give it with --original-context"
    )
    for wrong in ("0", "2048", "-4"):
        assert "original" in refused([*command, "--original-context", wrong], capsys)
    run([*command, "--original-context", str(L), "-o", str(tmp_path / "out.gguf")], capsys)
    direct = [
        "gguf",
        str(model),
        "--type",
        "F32",
        "--yarn-factor",
        "8",
        "-o",
        str(tmp_path / "direct.gguf"),
    ]
    run(direct, capsys)
    found, wanted = (prepare(tmp_path / name, None) for name in ("out.gguf", "direct.gguf"))
    assert found.main_rope == wanted.main_rope
    looked = report(["inspect", *command[1:], "--original-context", str(L)], capsys)
    assert (looked["original_context"], looked["context"]) == (L, 8 * L)


@pytest.mark.llama
def test_what_was_said_for_a_file_is_proven(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = scaled_gguf(model, tmp_path / "in.gguf", capsys, *LLAMA3)
    told = ["--yarn-factor", "8", "--on-existing", "replace", "--original-context", str(L)]
    run(["gguf", str(source), *told, "-o", str(tmp_path / "out.gguf")], capsys)
    assert "PASS" in run(["verify", str(tmp_path / "out.gguf"), "--tokens", "320"], capsys)[0]
    bare = edit(tmp_path / "out.gguf", tmp_path / "bare.gguf", {"ropeconv.provenance": None})
    options = ["--reference", str(source), *told, "--tokens", "320"]
    assert "PASS" in run(["verify", str(bare), *options], capsys)[0]
    half = [option if option != str(L) else str(L // 2) for option in options]
    assert "FAIL" in run(["verify", str(bare), *half], capsys, code=1)[0]


def test_yarn_without_its_trained_length(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = scaled_gguf(model, tmp_path / "in.gguf", capsys, "--yarn-factor", "4")
    out = ["-o", str(tmp_path / "out.gguf")]
    told = refused(["gguf", str(source), *out], capsys)
    assert (
        "G3: yarn without original_context_length; give the trained length with "
        "--original-context N (1024, or 256"
    ) in told
    assert run(["gguf", str(source), "--original-context", str(L), *out], capsys)[1].startswith(
        "prove it"
    )
    found, wanted = (prepare(tmp_path / name, None) for name in ("out.gguf", "plain.gguf"))
    assert found.main_rope == wanted.main_rope
    mended = [
        "inspect",
        str(source),
        "--fix",
        "--original-context",
        str(L),
        "-o",
        str(tmp_path / "mended.gguf"),
    ]
    run(mended, capsys)
    assert prepare(tmp_path / "mended.gguf", None).main_rope == wanted.main_rope


def test_a_config_without_its_trained_length(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linear = {"rope_type": "linear", "rope_theta": 20000.0, "factor": 4.0}
    source = with_config(
        model, tmp_path / "linear", rope_parameters=linear, max_position_embeddings=4 * L
    )
    for existing, factor in (("replace", "8"), ("compose", "2")):
        scaling = ["--pi-factor", factor, "--on-existing", existing]
        command = ["gguf", str(source), *scaling, "--dry-run"]
        assert "without saying its trained context; give --original-context" in refused(
            command, capsys
        )
        found = report([*command, "--original-context", str(L)], capsys)
        assert (found["original_context"], found["context"]) == (L, 8 * L)


# keys that change what layers attend to in other families, and nothing in transformers' llama
FOREIGN: dict[str, Any] = {
    "sliding_window": 128,
    "use_sliding_window": True,
    "max_window_layers": 1,
    "sliding_window_pattern": 2,
    "no_rope_layers": [1, 0],
    "no_rope_layer_interval": 2,
    "attention_chunk_size": 64,
}


@pytest.mark.parametrize("key", FOREIGN)
def test_keys_of_other_families(
    key: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = with_config(model, tmp_path / "odd", **{key: FOREIGN[key]})
    for target, out in (("gguf", "out.gguf"), ("safetensors", "out")):
        command = [target, str(source), "--pi-factor", "4", "-o", str(tmp_path / out), "--dry-run"]
        told = refused(command, capsys)
        assert f"config.json has {key}, which ropeconv does not read for llama" in told
        report([*command, "--ignore-config-key", key], capsys)


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key in [*FOREIGN, "layer_types"] for value in (False, [])]
    + [("layer_types", ["full_attention"] * 2)],
)
def test_keys_of_other_families_that_say_nothing(
    key: str, value: Any, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = with_config(model, tmp_path / "odd", **{key: value})
    report(["gguf", str(source), "--pi-factor", "4", "--dry-run"], capsys)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {key: None}))
    report(["gguf", str(source), "--pi-factor", "4", "--dry-run"], capsys)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"is_encoder_decoder": True}, "is_encoder_decoder means an encoder beside the decoder"),
        ({"pruned_heads": {"1": [0]}}, "pruned_heads means heads taken out of some layers"),
        ({"add_cross_attention": True}, "add_cross_attention means attention to an encoder"),
        ({"rope_interleaved": True}, "rope_interleaved means interleaved rotary pairs"),
    ],
)
def test_values_that_change_attention(
    changes: dict[str, Any],
    text: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert text in refused(["gguf", str(with_config(model, tmp_path / "odd", **changes))], capsys)


@pytest.mark.parametrize(
    ("types", "text"),
    [
        (["sliding_attention", "full_attention"], "layer_types does not fit {}'s other keys"),
        (["full_attention"], "layer_types"),
        (["full_attention", "chunked_attention"], "layer_types"),
        (True, "layer_types"),
    ],
)
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_layers_that_contradict_themselves(
    family: str, types: Any, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_checkpoint(tmp_path / "model", family, context=L)
    told = refused(["gguf", str(with_config(source, tmp_path / "odd", layer_types=types))], capsys)
    assert text.format(family) in told
