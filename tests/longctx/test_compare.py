"""Comparisons: variants measured as their own runtimes measure them, reported, resumed, refused."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from ropeconv.cli import main
from ropeconv.errors import CheckpointError, ConfigError
from tests.checkpoints import save_checkpoint
from tests.longctx import plain
from tests.longctx.comparing import ROPE, ask, ids_of, run


def test_every_row_sees_the_same_tokens_and_is_what_transformers_gives(
    tiny: Path, text: Path, tmp_path: Path
) -> None:
    found = ask(tiny, tmp_path / "out", text=[text])
    ids = ids_of(tiny, text, 512)
    none, pi = found.results
    np.testing.assert_allclose(none.measured.losses, plain.losses(plain.load(tiny), ids), atol=2e-4)
    scaled = plain.load(tiny, ROPE, context=512, work=tmp_path)
    np.testing.assert_allclose(pi.measured.losses, plain.losses(scaled, ids), atol=2e-4)
    assert np.abs(none.measured.losses - pi.measured.losses).max() > 0.05
    assert pi.none is not None
    assert pi.none.short.mean == pytest.approx(
        float((pi.measured.losses - none.measured.losses)[:255].mean()), abs=1e-5
    )


def test_finished_files_run_in_their_own_runtimes(tiny: Path, text: Path, tmp_path: Path) -> None:
    """All three are one model, so each must come out as PI itself; another factor must not."""
    for command in (
        ["gguf", "--type", "F32", "-o", "x2.gguf"],
        ["onnx", "--type", "fp32", "-o", "x2-onnx"],
    ):
        run(tmp_path, [command[0], str(tiny), "--pi-factor", "2", *command[1:], "--quiet"])
    run(tmp_path, ["safetensors", str(tiny), "--pi-factor", "2", "-o", "x2-hf", "--quiet"])
    run(
        tmp_path,
        ["gguf", str(tiny), "--pi-factor", "4", "--type", "F32", "-o", "x4.gguf", "--quiet"],
    )
    files = [tmp_path / name for name in ("x2.gguf", "x2-onnx", "x2-hf", "x4.gguf")]
    found = ask(tiny, tmp_path / "out", text=[text], also=files)
    losses = {result.variant.label: result.measured.losses for result in found.results}
    for name in ("x2.gguf", "x2-onnx", "x2-hf"):
        np.testing.assert_allclose(losses[name], losses["pi x2"], atol=1e-3)
    assert np.abs(losses["x4.gguf"] - losses["pi x2"]).max() > 0.05


def test_longrope_below_the_trained_length_counts_its_short_table(
    tiny: Path, text: Path, tmp_path: Path
) -> None:
    rope = {
        "rope_type": "longrope",
        "short_factor": [1.0] * 8,
        "long_factor": [3.0] * 8,
        "factor": 2.0,
    }
    found = ask(tiny, tmp_path / "out", text=[text], parameters={"own": rope})
    own = found.results[-1]
    assert own.variant.label == "own"
    model = plain.load(
        tiny,
        rope | {"original_max_position_embeddings": 256, "rope_theta": 20000.0},
        context=512,
        work=tmp_path,
    )
    ids = ids_of(tiny, text, 512)
    assert own.short.loss == pytest.approx(plain.losses(model, ids[:256]).mean(), abs=1e-4)
    assert own.whole.loss == pytest.approx(plain.losses(model, ids).mean(), abs=1e-4)
    assert own.short.loss != pytest.approx(float(own.measured.losses[:255].mean()), abs=1e-3)


def test_a_second_run_measures_only_what_is_missing(tiny: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ask(tiny, out, text=[text])
    kept = {path: path.stat().st_mtime_ns for path in (out / "rows").iterdir()}
    found = ask(tiny, out, text=[text], methods=["none", "pi", "yarn"])
    assert {
        path: path.stat().st_mtime_ns for path in (out / "rows").iterdir() if path in kept
    } == kept
    assert len(list((out / "rows").iterdir())) == 3
    next(iter(kept)).write_bytes(b"spoilt")
    again = ask(tiny, out, text=[text], methods=["none", "pi", "yarn"])
    assert [r.whole for r in again.results] == [r.whole for r in found.results]
    ask(tiny, out, text=[text], tokens=400)  # another length is another task
    assert len(list((out / "rows").iterdir())) == 5


def test_a_spoilt_tokenizer_is_no_row(tiny: Path, text: Path, tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path / "other", "llama", context=512)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:10]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointError, match="other: its tokenizer splits the text otherwise"):
        ask(tiny, tmp_path / "out", text=[text], also=[other])


def test_reports(
    tiny: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    common = [
        "compare",
        str(tiny),
        "--methods",
        "none,pi,dynamic",
        "--tokens",
        "900",
        "--text",
        str(text),
        "--passkeys",
        "2",
    ]
    with pytest.raises(SystemExit) as done:
        main([*common, "-o", str(out), "--json"])
    assert done.value.code == 0
    facts = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in facts["rows"]] == ["none", "pi x2", "dynamic x2"]
    assert facts == json.loads((out / "report.json").read_text())
    assert all(len(row["bands"]) == 8 and len(row["passkeys"]) == 2 for row in facts["rows"])
    lines = list(csv.DictReader((out / "report.csv").read_text().splitlines()))
    assert [float(line["loss"]) for line in lines] == [
        band["loss"] for row in facts["rows"] for band in row["bands"]
    ]
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "pi x2" in page
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", page)  # nothing beside it
    with pytest.raises(SystemExit):
        main([*common, "-o", str(out)])
    said = capsys.readouterr().out
    assert "does not help past the trained length" in said
    assert "report.html" in said


WRONG = {
    "a short text": (
        {"tokens": 10**6},
        CheckpointError,
        "1000000 are needed; give a longer text or fewer --tokens",
    ),
    "an unknown method": (
        {"methods": ["none", "yran"]},
        ConfigError,
        "no method 'yran'; near: yarn",
    ),
    "no such file": ({"also": [Path("nowhere.gguf")]}, ConfigError, "nowhere.gguf: no such file"),
    "nothing": ({"methods": []}, ConfigError, "there is nothing to compare"),
    "twice": ({"methods": ["pi", "pi"]}, ConfigError, "pi x2 is there twice"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(case: str, tiny: Path, text: Path, tmp_path: Path) -> None:
    choices, kind, words = WRONG[case]
    with pytest.raises(kind, match=words):
        ask(tiny, tmp_path / "out", **({"text": [text]} | choices))
    assert not (tmp_path / "out").exists()


def test_two_files_of_one_name_are_refused(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / folder / "own.json" for folder in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        file.write_text(json.dumps({"rope_type": "linear", "factor": 2.0}))
    options = [part for file in files for part in ("--rope-parameters", str(file))]
    with pytest.raises(SystemExit) as done:
        main(["compare", str(tiny), *options, "-o", str(tmp_path / "out")])
    assert done.value.code == 2
    assert "two --rope-parameters files have the same name; rename one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_profit(text: Path, tmp_path: Path) -> None:
    """Every layer sees a window of 64 tokens, so that no scaling reaches further."""
    sliding = save_checkpoint(tmp_path / "sliding", "mistral", context=256, sliding_window=64)
    with pytest.raises(
        ConfigError,
        match="no method can lengthen this model: every layer attends within a window of 64",
    ):
        ask(sliding, tmp_path / "out", text=[text])


def test_a_scaled_checkpoint_is_a_row_not_a_base(text: Path, tmp_path: Path) -> None:
    scaled = save_checkpoint(
        tmp_path / "scaled",
        "llama",
        context=512,
        rope={
            "rope_type": "yarn",
            "factor": 2.0,
            "original_max_position_embeddings": 256,
            "rope_theta": 20000.0,
        },
    )
    with pytest.raises(ConfigError, match=r"is scaled already .* with --also"):
        ask(scaled, tmp_path / "out", text=[text])
