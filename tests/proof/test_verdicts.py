"""`verify` on files written by hand: sound ones pass every rung, and each planted fault fails the
rung that is there for it.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ropeconv.cli import main
from ropeconv.commands.verify import command
from ropeconv.errors import CheckpointError, ConfigError, RopeconvError
from ropeconv.proof.report import FAIL, OK, SKIPPED
from ropeconv.proof.run import verify
from tests.proof.conftest import CONTEXT, LINEAR_KEYS, SCALED, THETA, L, Sound
from tests.proof.reports import RUNGS, failed, findings, statuses

pytestmark = pytest.mark.llama

YARN_KEYS = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
LONG_KEYS = {"rope.scaling.type": "longrope", "rope.scaling.attn_factor": 1.25}
LONG_TABLES = {
    f"rope_factors_{name}.weight": np.array(SCALED["longrope"][f"{name}_factor"], np.float32)
    for name in ("short", "long")
}
Q = "blk.1.attn_q.weight"
ORIGINAL = "rope.scaling.original_context_length"
M4 = 1 + 0.1 * math.log(4)


@pytest.mark.parametrize(
    ("family", "scaling", "keys", "tables"),
    [
        ("llama", "linear", LINEAR_KEYS, None),
        ("llama", "yarn", YARN_KEYS, None),
        ("llama", "longrope", LONG_KEYS, LONG_TABLES),
        ("qwen3", "yarn", YARN_KEYS, None),
        ("gemma3_text", "linear", LINEAR_KEYS, None),
        ("gpt_neox", "linear", LINEAR_KEYS, None),
        ("phi3", "longrope", LONG_KEYS, LONG_TABLES),
    ],
)
def test_a_sound_file_passes(
    family: str, scaling: str, keys: dict[str, Any], tables: Any, make_sound: Any, tmp_path: Path
) -> None:
    if family == "gpt_neox":
        # its config has no head_dim, and transformers rotates a quarter of the head unless told
        # otherwise
        keys = keys | {"rope.dimension_count": 8}
    sound = make_sound(family, scaling, keys, tables)
    report = verify(sound.gguf.write(tmp_path / "t.gguf"))
    assert set(statuses(report).values()) == {OK}
    assert statuses(report).keys() >= RUNGS
    assert report.ok
    assert report.reached == CONTEXT
    assert "not run" not in report.verdict
    edges = [band.start for band in report.measured[-1].bands]
    assert L in edges
    assert max(edges) > L
    assert len(report.measured) == (2 if scaling == "longrope" else 1)


def _scaled_tensor(sound: Sound) -> dict[str, Any]:
    return {"tensors": {Q: sound.gguf.tensors[Q] * np.float32(1.01)}}


def _swapped_pairs(sound: Sound) -> dict[str, Any]:
    rows = sound.gguf.tensors[Q]
    # halves, as Hugging Face has them
    return {"tensors": {Q: rows.reshape(4, -1, 2, 64).swapaxes(1, 2).reshape(rows.shape)}}


def _not_finite(sound: Sound) -> dict[str, Any]:
    rows = sound.gguf.tensors[Q].copy()
    rows[3, 5] = np.nan
    return {"tensors": {Q: rows}}


# fault -> (scaling, changes, the rungs that must fail); the others must not
FAULTS: dict[str, tuple[str, Any, set[str]]] = {
    "factor off by 1 %": (
        "linear",
        {"keys": {"rope.scaling.factor": 4.04}},
        {"frequencies", "logits"},
    ),
    "scaling dropped": (
        "linear",
        {"keys": {"rope.scaling.type": "none"}},
        {"frequencies", "logits"},
    ),
    "theta halved": ("linear", {"keys": {"rope.freq_base": THETA / 2}}, {"frequencies", "logits"}),
    "magnitude dropped": (
        "yarn",
        {"keys": {"rope.scaling.attn_factor": 1 / M4}},
        {"frequencies", "logits"},
    ),
    "one tensor scaled": ("linear", _scaled_tensor, {"weights", "logits"}),
    "pairs swapped": ("linear", _swapped_pairs, {"weights", "logits"}),
    "a value is not finite": ("linear", _not_finite, {"weights", "logits"}),
    "context length left": (
        "linear",
        {"keys": {"context_length": L, ORIGINAL: None}},
        {"structure"},
    ),
    "original context left out": (
        "yarn",
        {"keys": {ORIGINAL: None}},
        {"structure", "frequencies", "logits"},
    ),
    "wrong epsilon": (
        "linear",
        {"keys": {"attention.layer_norm_rms_epsilon": 0.1}},
        {"structure", "logits"},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails_its_rung(fault: str, make_sound: Any, tmp_path: Path) -> None:
    scaling, changes, expected = FAULTS[fault]
    sound = make_sound("llama", scaling, {"linear": LINEAR_KEYS, "yarn": YARN_KEYS}[scaling])
    wrong = sound.changed(**(changes(sound) if callable(changes) else changes))
    report = verify(wrong.gguf.write(tmp_path / "t.gguf"))
    assert failed(report) == expected
    assert not report.ok
    assert report.verdict.startswith("FAIL: ")


def test_findings_say_where_and_what_was_expected(linear: Sound, tmp_path: Path) -> None:
    wrong = linear.changed(
        keys={"rope.scaling.factor": 4.04}, tensors=_scaled_tensor(linear)["tensors"]
    )
    report = verify(wrong.gguf.write(tmp_path / "t.gguf"))
    found = findings(report, "frequencies")
    assert "full_attention: pair" in found
    assert "(ratio 0.990099; 8 of 8 pairs differ)" in found
    assert "model.layers.1.self_attn.q_proj.weight[0, 0] is " in findings(report, "weights")
    assert f"positions {L}-" in findings(report, "logits")


def test_structure_stops_what_llama_cpp_would_abort_on(linear: Sound, tmp_path: Path) -> None:
    wrong = linear.changed(keys={"rope.scaling.type": "llama3"})
    report = verify(wrong.gguf.write(tmp_path / "t.gguf"))
    assert statuses(report) == dict.fromkeys(RUNGS, SKIPPED) | {"structure": FAIL}
    assert "llama.cpp aborts" in findings(report, "structure")


def test_a_missing_tensor_is_named(linear: Sound, tmp_path: Path) -> None:
    report = verify(linear.changed(tensors={Q: None}).gguf.write(tmp_path / "t.gguf"))
    assert "model.layers.1.self_attn.q_proj.weight is missing" in findings(report, "structure")


def test_another_token_text_or_special_id_fails_tokens(linear: Sound, tmp_path: Path) -> None:
    tokenizer = json.loads(json.dumps(linear.gguf.tokenizer))
    vocab = tokenizer["model"]["vocab"]
    merged = [token for token in vocab if len(token) == 2 and token.isalpha()][:2]
    vocab[merged[0]], vocab[merged[1]] = vocab[merged[1]], vocab[merged[0]]
    gguf = replace(linear.gguf, tokenizer=tokenizer)
    report = verify(gguf.write(tmp_path / "t.gguf"))
    assert failed(report) == {"tokens"}
    found = findings(report, "tokens")
    assert "text 'english': token " in found
    assert f"reads {merged[1]!r}, the reference says {merged[0]!r}" in found or (
        f"reads {merged[0]!r}, the reference says {merged[1]!r}" in found
    )


def test_a_wrong_special_id_fails_tokens(linear: Sound, tmp_path: Path) -> None:
    report = verify(replace(linear.gguf, eos=5).write(tmp_path / "t.gguf"), tokens=64)
    assert failed(report) == {"tokens"}
    assert findings(report, "tokens") == "the eos token is 5, the reference has 0"


def test_a_tensor_too_many_and_a_wrong_family_are_named(linear: Sound, tmp_path: Path) -> None:
    bias = {"blk.0.attn_q.bias": np.zeros(64, np.float32)}
    report = verify(linear.changed(tensors=bias).gguf.write(tmp_path / "b.gguf"))
    assert "model.layers.0.self_attn.q_proj.bias belongs to no part of the model" in findings(
        report, "structure"
    )
    told = json.loads(linear.gguf.strings["ropeconv.provenance"]) | {"family": "qwen2"}
    wrong = linear.changed(strings={"ropeconv.provenance": json.dumps(told)})
    report = verify(wrong.gguf.write(tmp_path / "f.gguf"), tokens=64)
    assert "provenance says family qwen2, the reference is llama" in findings(report, "structure")


def test_what_llama_cpp_refuses_is_a_failed_check_with_its_reason(
    linear: Sound, tmp_path: Path
) -> None:
    report = verify(replace(linear.gguf, pre="nonsense").write(tmp_path / "t.gguf"), tokens=64)
    assert failed(report) == {
        "tokens",
        "logits",
    }
    assert "unknown pre-tokenizer type: 'nonsense'" in findings(report, "logits")
    assert report.verdict.startswith("FAIL: tokens, ")


@pytest.mark.parametrize("side", ["short", "long"])
def test_each_longrope_table_has_its_own_pass(side: str, make_sound: Any, tmp_path: Path) -> None:
    sound = make_sound("llama", "longrope", LONG_KEYS, LONG_TABLES)
    name = f"rope_factors_{side}.weight"
    wrong = sound.changed(tensors={name: LONG_TABLES[name] * np.float32(1.01)})
    report = verify(wrong.gguf.write(tmp_path / "t.gguf"))
    assert f"full_attention ({side})" in findings(report, "frequencies")
    bad = [any(band.nmse > 1e-6 for band in measured.bands) for measured in report.measured]
    assert bad == [side == "short", side == "long"]
    assert [m.run.tokens for m in report.measured] == [L, CONTEXT]


def test_the_verdict_says_when_logits_stopped_short(linear: Sound, tmp_path: Path) -> None:
    path = linear.gguf.write(tmp_path / "t.gguf")
    report = verify(path, tokens=200)
    assert report.ok
    assert f"logits past the trained {L} tokens were not run" in report.verdict
    text = tmp_path / "short.txt"
    text.write_text("A short text.")
    report = verify(path, text=text)
    assert "the text ended before the 1024 tokens wanted" in report.rungs[-1].summary
    assert f"logits past the trained {L} tokens were not run" in report.verdict
    with pytest.raises(ConfigError, match="--tokens 2000: give 2 to 1024"):
        verify(path, tokens=2000)


def test_wrong_input_is_refused_in_one_line(linear: Sound, tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty.txt", tmp_path / "b.txt"
    empty.write_text(" \n")
    binary.write_bytes(b"\xff\xfe\x00")
    path = linear.gguf.write(tmp_path / "t.gguf")
    for text in (empty, binary):
        with pytest.raises(CheckpointError, match=r"holds no text|not a readable UTF-8 text"):
            verify(path, text=text)
    for wrong in (tmp_path / "none.gguf", linear.folder / "config.json"):
        with pytest.raises(RopeconvError) as caught:
            verify(wrong)
        assert "\n" not in str(caught.value)


def test_the_command_reports_and_exits_by_verdict(
    linear: Sound, tmp_path: Path, capsys: Any
) -> None:
    good = linear.gguf.write(tmp_path / "good.gguf")
    bad = linear.changed(keys={"rope.scaling.factor": 4.04}).gguf.write(tmp_path / "bad.gguf")
    codes = []
    for arguments in (
        [str(good), "--tokens", "300"],
        [str(bad), "--json"],
        [str(linear.folder / "config.json")],
    ):
        with pytest.raises(SystemExit) as caught:
            main(["verify", *arguments])
        codes.append(caught.value.code)
        out, err = capsys.readouterr()
        if len(codes) == 1:
            assert "PASS: " in out
            assert f"{L}-299*" in out
        if len(codes) == 2:
            report = json.loads(out)
            assert report["ok"] is False
            assert {rung["name"]: rung["status"] for rung in report["rungs"]}["frequencies"] == FAIL
            assert report["measured"][0]["whole"]["nmse"] > 1e-5
    assert codes == [0, 1, 2]
    assert err.startswith("ropeconv: ")
    assert CliRunner().invoke(command, ["--help"]).output.count("ropeconv verify ") == 7
