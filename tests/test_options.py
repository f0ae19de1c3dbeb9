"""Options of the converting commands: dry runs, parameters of a scaling, notes on what runtimes
make of the source.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import save_checkpoint, with_config
from tests.command_line import refused, report, run

L = 256
TARGETS = {"gguf": "out.gguf", "onnx": "out", "safetensors": "out"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("source") / "model", "llama", context=L)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs without a name land here."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_a_dry_run_refuses_what_the_run_would(
    target: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / TARGETS[target]
    command = [target, str(model), "--pi-factor", "4", "-o", str(out)]
    run([*command, "--dry-run"], capsys)
    assert not list(tmp_path.iterdir())
    if out.suffix:
        out.write_text("mine")
    else:
        shutil.copytree(model, out)
    told = {refused([*command, *more], capsys) for more in ([], ["--dry-run"])}
    assert len(told) == 1
    assert "exists; pass --force to replace it" in told.pop()
    run([*command, "--dry-run", "--force"], capsys)
    nowhere = [*command[:-1], str(tmp_path / "no" / TARGETS[target])]
    assert refused(nowhere, capsys) == refused([*nowhere, "--dry-run"], capsys)


@pytest.mark.parametrize("target", ["onnx", "safetensors"])
def test_a_source_folder_is_not_its_own_output(
    target: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    for out in (model, model.parent, model / ".." / model.name):
        for more in ([], ["--dry-run"]):
            assert "the source lies there; choose another folder with -o" in refused(
                [target, str(model), "--pi-factor", "4", "-o", str(out), "--force", *more], capsys
            )
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def numbers(model: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found = report(["gguf", str(model), *options, "--dry-run"], capsys)
    return {
        key: found[key]
        for key in ("scaling", "context", "divisors", "attention_factor", "keys", "carried_as")
    }


def test_a_shorthand_takes_parameters(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = [
        "--scaling",
        "yarn",
        "--factor",
        "4",
        "--set",
        "beta_fast=8",
        "--set",
        "attention_factor=1.25",
    ]
    short = ["--yarn-factor", "4", "--set", "beta_fast=8", "--set", "attention_factor=1.25"]
    assert numbers(model, short, capsys) == numbers(model, long, capsys)
    assert numbers(model, short, capsys) != numbers(model, ["--yarn-factor", "4"], capsys)
    assert numbers(model, short, capsys)["attention_factor"] == 1.25


def test_a_factor_beside_a_file(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rope.json"
    file.write_text(json.dumps({"rope_type": "yarn", "original_max_position_embeddings": L}))
    bare = ["--rope-parameters", str(file)]
    assert "yarn needs a factor or a target; give --factor or --context" in refused(
        ["gguf", str(model), *bare], capsys
    )
    assert numbers(model, [*bare, "--factor", "4"], capsys) == numbers(
        model, ["--yarn-factor", "4"], capsys
    )


REFUSED = {
    "a key that the kind has not": (
        ["--pi-factor", "4", "--set", "beta_fast=8"],
        "linear has no parameter 'beta_fast'",
    ),
    "a factor among the parameters": (
        ["--yarn-factor", "4", "--set", "factor=8"],
        "factor is given twice",
    ),
    "parameters beside a file": (
        ["--rope-parameters", "FILE", "--set", "a=1"],
        "rope_parameters name their own kind and values",
    ),
}
MISUSED = {
    "two factors": (
        ["--yarn-factor", "4", "--factor", "8"],
        "--factor belongs to --scaling KIND or --rope-parameters",
    ),
    "a factor alone": (
        ["--factor", "8"],
        "--factor belongs to --scaling KIND or --rope-parameters",
    ),
    "parameters alone": (
        ["--set", "beta_fast=8"],
        "--set belongs to --pi-factor, --ntk-factor, --yarn-factor or --scaling KIND",
    ),
    "parameters of a length": (
        ["--context", "512", "--set", "a=1"],
        "--set belongs to --pi-factor",
    ),
    "one key, two values": (
        ["--yarn-factor", "4", "--set", "beta_fast=8", "--set", "beta_fast=9"],
        "--set gives beta_fast twice",
    ),
    "two ways": (["--yarn-factor", "4", "--pi-factor", "8"], "give one of --pi-factor"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_parameters_that_a_scaling_refuses(
    case: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, text = REFUSED[case]
    (tmp_path / "FILE").write_text('{"rope_type": "linear", "factor": 4.0}')
    options = [str(tmp_path / "FILE") if option == "FILE" else option for option in options]
    assert text in refused(["gguf", str(model), *options], capsys)


@pytest.mark.parametrize("case", MISUSED)
def test_options_that_do_not_go_together(
    case: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, text = MISUSED[case]
    out, err = run(["gguf", str(model), *options], capsys, code=2)
    assert out == ""
    assert text in err


YARN = {
    "rope_type": "yarn",
    "rope_theta": 20000.0,
    "factor": 4.0,
    "original_max_position_embeddings": L,
}
K3 = (
    "note K3: rope_parameters: factor 4 from 256 tokens, but max_position_embeddings is still 256 "
    "(vLLM, llama.cpp's server, onnxruntime-genai: stop at 256 tokens); set "
    "max_position_embeddings to 1024"
)


def notes(
    target: str, source: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[list[str], list[str]]:
    """(lines of stderr, names in the JSON) of a dry run."""
    command = [
        target,
        str(source),
        *options,
        "-o",
        str(source.parent / f"new-{TARGETS[target]}"),
        "--dry-run",
    ]
    lines = run(command, capsys)[1].splitlines()
    return lines, [finding["name"] for finding in report(command, capsys)["findings"]]


def test_notes_name_what_the_target_meets(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = with_config(model, tmp_path / "stale", rope_parameters=YARN)
    lines, names = notes("gguf", stale, capsys)
    assert lines == [K3]
    assert names == ["K3"]
    lines, names = notes("safetensors", stale, capsys)
    assert lines[0].startswith("note K3: ")
    assert "transformers 5: scales, and says that the lengths do not fit" in lines[0]
    assert names[0] == "K3"
    lines, names = notes("onnx", stale, capsys)
    assert lines[0] == K3
    assert names == ["K3"]


def test_a_sound_source_gets_no_notes(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for target in TARGETS:
        assert notes(target, model, capsys) == ([], [])


def test_notes_are_about_the_model_that_is_written(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = with_config(model, tmp_path / "stale", rope_parameters=YARN)
    assert notes("gguf", stale, capsys, "--on-existing", "replace", "--pi-factor", "2") == ([], [])
    tables = json.dumps(
        {
            "rope_type": "longrope",
            "short_factor": [1.0] * 8,
            "long_factor": [4.0] * 8,
            "factor": 4.0,
        }
    )
    (tmp_path / "long.json").write_text(tables)
    lines, names = notes("gguf", model, capsys, "--rope-parameters", str(tmp_path / "long.json"))
    assert names == ["T9", "D8"]
    assert (
        "llama.cpp: takes the long table for every token once more than the trained "
        "length is allocated"
    ) in lines[0]


def test_notes_on_a_gguf_source(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = with_config(model, tmp_path / "stale", rope_parameters=YARN)
    run(["gguf", str(stale), "-o", str(tmp_path / "stale.gguf")], capsys)
    lines, names = notes("gguf", tmp_path / "stale.gguf", capsys)
    assert names == ["G2"]
    assert lines == [
        "note G2: context_length is 256, factor 4 from 256 reaches 1024 "
        "(llama.cpp: llama-server caps every slot at 256; -c 0 allocates 256); set it to 1024"
    ]
    assert notes(
        "gguf", tmp_path / "stale.gguf", capsys, "--on-existing", "replace", "--pi-factor", "2"
    ) == ([], [])


def test_an_error_is_still_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = with_config(model, tmp_path / "stale", rope_parameters=YARN)
    (tmp_path / "out.gguf").write_text("mine")
    assert "exists" in refused(["gguf", str(stale), "-o", str(tmp_path / "out.gguf")], capsys)
