"""Wrong input to `ropeconv onnx`: one clear line, exit 2, nothing half-written, the previous folder
intact.
"""

from __future__ import annotations

import json
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import save_checkpoint
from tests.command_line import loaded_by, refused, start

L = 64


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("good") / "model", "llama", context=L)


@pytest.fixture
def model(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "model")


def poison(value: float) -> Callable[[Path], object]:
    def spoil(model: Path) -> None:
        from safetensors.numpy import load_file, save_file

        weights = load_file(model / "model.safetensors")
        weights["model.layers.1.mlp.up_proj.weight"][2, 7] = np.float32(value)
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})

    return spoil


def edit(name: str, **changes: object) -> Callable[[Path], object]:
    def spoil(model: Path) -> None:
        path = model / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


CASES: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "NaN": (
        poison(float("nan")),
        [],
        "model.layers.1.mlp.up_proj.weight, row 2, column 7: value nan is not finite",
    ),
    "too large for float16": (
        poison(1e6),
        ["--type", "fp16"],
        "value 1e+06 is past the range of fp16; take --type fp32",
    ),
    "infinite in blocks": (poison(float("inf")), ["--type", "int4"], "row 2, column 7: value inf"),
    "no tokenizer": (
        lambda m: (m / "tokenizer.json").unlink(),
        [],
        "no tokenizer.json, which onnxruntime-genai",
    ),
    "unknown activation": (edit("config.json", hidden_act="relu"), [], "hidden_act = 'relu'"),
    "an odd head size": (edit("config.json", head_dim=15), [], "head_dim"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_source(
    case: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, options, text = CASES[case]
    spoil(model)
    assert text in refused(
        ["onnx", str(model), "--pi-factor", "4", *options, "-o", str(tmp_path / "out")], capsys
    )
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


OPTIONS: dict[str, tuple[list[str], str]] = {
    "unknown type": (["--type", "int5"], "no ONNX type 'int5'; near: int8, int4"),
    "unknown profile": (
        ["--profile", "standart"],
        "no ONNX profile 'standart'; near: standard; known: ort, standard",
    ),
    "block size for floats": (["--block-size", "32"], "--block-size is for types in blocks"),
    "block size": (
        ["--type", "int4", "--block-size", "33"],
        "--block-size 33 must be a power of two",
    ),
    "accuracy level": (["--type", "int4", "--accuracy-level", "7"], "no accuracy level 7"),
    "dynamic": (["--scaling", "dynamic", "--factor", "4"], "--scaling ntk --factor 13"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_a_wrong_option(
    case: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, text = OPTIONS[case]
    assert text in refused(["onnx", str(good), *options, "-o", str(tmp_path / "out")], capsys)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_replaced_only_when_told_and_only_when_it_is_a_model_s(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("mine")
    arguments = ["onnx", str(good), "-o", str(out)]
    assert "exists; pass --force" in refused(arguments, capsys)
    assert "holds no model" in refused([*arguments, "--force"], capsys)
    assert [p.name for p in out.iterdir()] == ["letter.txt"]
    assert "the source lies there" in refused(
        ["onnx", str(good), "-o", str(good), "--force"], capsys
    )


def test_a_file_system_that_takes_no_more_leaves_the_old_folder(good: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("old")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = start(["onnx", str(good), "-o", str(out), "--force"], preexec_fn=limit)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert len(errors.strip().splitlines()) == 1
    assert "not written" in errors
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (out / "config.json").read_text() == "old"


def test_a_dry_run_writes_nothing_and_says_what_it_would(good: Path, tmp_path: Path) -> None:
    process = start(
        ["onnx", str(good), "--pi-factor", "4", "-o", str(tmp_path / "out"), "--dry-run", "--json"]
    )
    output, _ = process.communicate(timeout=60)
    facts = json.loads(output)
    assert (process.returncode, facts["written"], facts["context"], facts["carried_as"]) == (
        0,
        False,
        4 * L,
        "metadata",
    )
    assert not list(tmp_path.iterdir())
    process = start(["onnx", str(good), "--pi-factor", "4", "-o", str(tmp_path / "out"), "--json"])
    written = json.loads(process.communicate(timeout=60)[0])
    assert (
        written["bytes"]
        == facts["bytes"]
        == sum(Path(path).stat().st_size for path in written["files"])
    )


def test_converting_loads_no_runtime(good: Path, tmp_path: Path) -> None:
    loaded = loaded_by("onnx", str(good), "--type", "int4", "-o", str(tmp_path / "out"), "--quiet")
    assert (tmp_path / "out" / "onnx" / "model.onnx").exists()
    assert not loaded & {"torch", "transformers", "llama_cpp", "onnxruntime", "tokenizers"}


def test_threads_and_runs_give_the_same_bytes(good: Path, tmp_path: Path) -> None:
    from tests.to_onnx.onnx_folders import convert

    for kind in ("fp32", "int4"):
        found = []
        for threads in (1, 3):
            convert(good, tmp_path / "out", type=kind, threads=threads)
            found.append({p.name: p.read_bytes() for p in (tmp_path / "out" / "onnx").iterdir()})
        assert found[0] == found[1]
