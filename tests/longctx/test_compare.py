"""Comparisons: variants measured as their own runtimes measure them, judged in pairs, resumed."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.cli import main
from ropeconv.errors import CheckpointError, ConfigError
from ropeconv.longctx.compare.question import Question
from ropeconv.longctx.compare.run import Comparison, compare
from ropeconv.longctx.compare.verdicts import Against, compare_losses, describe, recommend
from ropeconv.longctx.measuring.differences import Difference, paired_difference
from ropeconv.longctx.measuring.variants import default_methods, known_methods
from tests.checkpoints import save_checkpoint
from tests.longctx import plain

ROPE = {"rope_type": "linear", "factor": 2.0, "rope_theta": 20000.0}


def ask(source: Path, folder: Path, **choices: Any) -> Comparison:
    values: dict[str, Any] = {
        "methods": ["none", "pi"],
        "factors": [2.0],
        "tokens": 512,
        "passkeys": 0,
    } | choices
    found = compare(source, folder, question=Question(**values))
    assert found is not None
    return found


def ids_of(folder: Path, text: Path, count: int) -> list[int]:
    from transformers import AutoTokenizer

    ids: list[int] = AutoTokenizer.from_pretrained(folder)(text.read_text())["input_ids"]
    return ids[:count]


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


def run(folder: Path, arguments: list[str]) -> None:
    old = Path.cwd()
    os.chdir(folder)
    try:
        with pytest.raises(SystemExit) as done:
            main(arguments)
    finally:
        os.chdir(old)
    assert done.value.code == 0


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


def test_verdicts_follow_the_numbers() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(3, 1, 2047).astype(np.float32)
    better, same = base.copy(), base + rng.normal(0, 0.1, 2047).astype(np.float32)
    better[1023:] -= 0.5
    assert paired_difference(better, base, 1024, 2048).sign == -1
    assert paired_difference(base, better, 1024, 2048).sign == 1
    assert paired_difference(same, base, 0, 2048).sign == 0
    assert paired_difference(better, base, 0, 1024).sign == 0
    found = compare_losses(better, base, name="none", trained=1024)
    assert "past 1024 beats none by 0.500" in describe(found, trained=1024)
    assert "below 1024 no clear difference from none" in describe(found, trained=1024)
    short = compare_losses(better[:500], base[:500], name="none", trained=1024)
    assert short.long is None
    assert "past" not in describe(short, trained=1024)


def against(long: float, short: float = 0.0) -> Against:
    return Against("x", Difference(short, 0.001), Difference(long, 0.001))


@pytest.mark.parametrize(
    ("method", "pi", "none", "words"),
    [
        ("yarn", against(-0.5), against(-2.0), "worth it: clearly better than PI"),
        ("yarn", against(0.5), against(-2.0), "not worth its complexity over PI"),
        ("yarn", against(0.0), against(-2.0), "not worth its complexity over PI"),
        (
            "yarn",
            against(0.0, -0.1),
            against(-2.0),
            "as good as PI past the trained length, and cheaper below it",
        ),
        ("yarn", against(-0.5), against(0.5), "does not help past the trained length"),
        ("pi", None, against(-2.0), "helps past the trained length"),
        ("pi", None, against(0.0), "does not help past the trained length"),
        ("none", None, None, ""),
    ],
)
def test_advice(method: str, pi: Against | None, none: Against | None, words: str) -> None:
    assert recommend(method, pi, none) == words


def test_the_methods_are_the_static_kinds_that_a_factor_determines() -> None:
    assert default_methods() == ["none", "pi", "llama3", "ntk", "ntk-critical", "ntk-parts", "yarn"]
    assert set(known_methods()) - set(default_methods()) == {"dynamic"}


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


def start(*arguments: str, limit: int | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ropeconv", *arguments]
    if limit is not None:
        command = ["bash", "-c", f'ulimit -v {limit}; exec "$@"', "bash", *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if limit is not None:  # a CUDA device is mapped into more addresses than any limit
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.torch
def test_out_of_memory_is_one_line(text: Path, tmp_path: Path) -> None:
    """8192 tokens in a layer 65536 wide want 2 GiB a tensor; a limit stands for a small machine."""
    wide = save_checkpoint(tmp_path / "wide", "llama", context=4096, intermediate_size=65536)
    common = [
        "compare",
        str(wide),
        "--methods",
        "none,pi",
        "--passkeys",
        "0",
        "--quiet",
        "--tokens",
        "8192",
    ]
    done = start(*common, "-o", str(tmp_path / "out"), limit=5_000_000)
    _, said = done.communicate()
    assert done.returncode == 2, said
    assert "out of memory during none; take fewer --tokens" in said
    assert "Traceback" not in said


@pytest.mark.torch
def test_an_interrupted_comparison_keeps_its_rows(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    common = [
        "compare",
        str(tiny),
        "--factors",
        "2,4,8,16",
        "--tokens",
        "4096",
        "--passkeys",
        "0",
        "--quiet",
        "-o",
        str(out),
    ]
    running = start(*common)
    deadline = time.monotonic() + 120
    while len(list(out.glob("rows/*.npz"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 2
    assert "interrupted" in said
    assert not (out / "report.html").exists()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("rows/[!.]*.npz")}
    assert 2 <= len(kept) < 25
    again = start(*common)
    assert (again.communicate()[1], again.returncode) == ("", 0)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert (out / "report.html").exists()


@pytest.mark.torch
def test_two_processes_measure_as_one(tiny: Path, text: Path, tmp_path: Path) -> None:
    common = [
        "compare",
        str(tiny),
        "--text",
        str(text),
        "--tokens",
        "900",
        "--passkeys",
        "2",
        "--json",
    ]
    alone = start(*common, "-o", str(tmp_path / "alone"))
    one, _ = alone.communicate()
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "-m",
        "ropeconv",
    ]
    done = subprocess.run(
        [*launch, *common, "-o", str(tmp_path / "two")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    two = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert [row["label"] for row in two["rows"]] == [
        row["label"] for row in json.loads(one)["rows"]
    ]
    for first, second in zip(json.loads(one)["rows"], two["rows"], strict=True):
        assert first["whole"]["loss"] == pytest.approx(second["whole"]["loss"], abs=1e-5)
        assert [key["loss"] for key in first["passkeys"]] == pytest.approx(
            [key["loss"] for key in second["passkeys"]], abs=1e-4
        )
