"""Writing a folder: shards, links, casts, texts, atomic output. Files are read back by safetensors
and transformers.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.api import convert as convert_source
from ropeconv.cli import main
from ropeconv.errors import CannotExpress, OutputError, RopeconvError
from ropeconv.extend import ScalingRequest
from ropeconv.prepare import prepare
from ropeconv.target import Emitted
from tests.checkpoints import save_checkpoint

L = 256
PI = ScalingRequest(kind="linear", factor=4)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("source") / "model", "llama", context=L)


def convert(
    source: Path, out: Path, request: ScalingRequest | None = PI, **options: Any
) -> Emitted:
    return convert_source(source, "safetensors", out, scaling=request, **options).emitted


def weights(folder: Path) -> dict[str, Any]:
    """Every tensor of the folder, by the safetensors library."""
    from safetensors.torch import load_file

    return {
        name: value
        for path in sorted(folder.glob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def test_unchanged_weights_keep_their_file(llama: Path, tmp_path: Path) -> None:
    copied, linked = convert(llama, tmp_path / "copy"), convert(llama, tmp_path / "link", link=True)
    assert (copied.details["weights"], linked.details["weights"]) == ("copied", "linked")
    source = llama / "model.safetensors"
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == source.read_bytes()
    assert (tmp_path / "copy" / "model.safetensors").stat().st_ino != source.stat().st_ino
    assert (tmp_path / "link" / "model.safetensors").stat().st_ino == source.stat().st_ino
    assert copied.size == sum(path.stat().st_size for path in copied.files)
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [
        path.name for path in copied.files
    ]


def test_texts_are_the_sources_own(llama: Path, tmp_path: Path) -> None:
    source = shutil.copytree(llama, tmp_path / "source")
    (source / "chat_template.jinja").write_text("{{ messages }}")
    settings = json.loads((source / "tokenizer_config.json").read_text()) | {"model_max_length": L}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    convert(source, tmp_path / "out")
    for name in ("tokenizer.json", "generation_config.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    # the tokenizer cuts texts at its own limit
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text()) == settings | {
        "model_max_length": 4 * L
    }


@pytest.mark.parametrize("dtype", ["F16", "bfloat16", "F32"])
def test_casts_are_torchs(dtype: str, llama: Path, tmp_path: Path) -> None:
    import torch

    types = {"F16": torch.float16, "bfloat16": torch.bfloat16, "F32": torch.float32}
    convert(llama, tmp_path / "out", dtype=dtype)
    found = weights(tmp_path / "out")
    for name, value in weights(llama).items():
        assert torch.equal(found[name], value.to(types[dtype])), name
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config.get("torch_dtype", config.get("dtype")) == str(types[dtype]).removeprefix(
        "torch."
    )


def test_shards_hold_every_tensor_once(llama: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    emitted = convert(llama, tmp_path / "out", max_shard_size=200_000)
    shards = [path for path in emitted.files if path.suffix == ".safetensors"]
    assert [path.name for path in shards] == [
        f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)
    ]
    assert len(shards) >= 3
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    source = weights(llama)
    assert set(index["weight_map"]) == set(source)
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in source.values())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in source.items())
    # and a sharded source keeps its files and its index
    convert(
        tmp_path / "out",
        tmp_path / "again",
        ScalingRequest(kind="linear", factor=8, on_existing="replace"),
    )
    assert (tmp_path / "again" / "model.safetensors.index.json").read_bytes() == json.dumps(
        index, indent=2
    ).encode() + b"\n"


def test_a_pytorch_archive_becomes_safetensors(llama: Path, tmp_path: Path) -> None:
    import torch

    source = shutil.copytree(llama, tmp_path / "source")
    (source / "model.safetensors").unlink()
    torch.save(weights(llama), source / "pytorch_model.bin")
    assert convert(source, tmp_path / "out").details["weights"] == "rewritten"
    found = weights(tmp_path / "out")
    assert all(torch.equal(found[name], value) for name, value in weights(llama).items())


def test_what_was_written_is_read_back_equal(llama: Path, tmp_path: Path) -> None:
    for kind in ("linear", "ntk", "yarn"):
        wrote = prepare(llama, ScalingRequest(kind=kind, factor=4))
        convert(llama, tmp_path / kind, ScalingRequest(kind=kind, factor=4), link=True)
        read = prepare(tmp_path / kind, None)
        found, wanted = read.frequencies["full_attention"], wrote.frequencies["full_attention"]
        assert found is not None
        assert wanted is not None
        assert np.array_equal(found.inv_freq, wanted.inv_freq)
        assert found.attention_factor == wanted.attention_factor
        assert (read.main_rope.original_context, read.main_rope.context) == (L, 4 * L)


def test_existing_scaling_is_replaced_or_composed(llama: Path, tmp_path: Path) -> None:
    convert(llama, tmp_path / "x4")
    with pytest.raises(RopeconvError, match="scaled already"):
        convert(tmp_path / "x4", tmp_path / "no")
    shorter = ScalingRequest(kind="linear", factor=2, on_existing="replace")
    with pytest.raises(RopeconvError, match=f"give --context {2 * L}"):
        convert(tmp_path / "x4", tmp_path / "no", shorter)
    convert(tmp_path / "x4", tmp_path / "x2", replace(shorter, context=2 * L))
    convert(
        tmp_path / "x4",
        tmp_path / "x8",
        ScalingRequest(kind="linear", factor=2, on_existing="compose"),
    )
    rho = {
        name: prepare(tmp_path / name, None).frequencies["full_attention"] for name in ("x2", "x8")
    }
    assert np.allclose(rho["x2"].rho, 2.0)  # type: ignore[union-attr]
    assert np.allclose(rho["x8"].rho, 8.0)  # type: ignore[union-attr]


def test_bake_is_obeyed_or_refused(llama: Path, tmp_path: Path) -> None:
    tables = convert(llama, tmp_path / "t", bake="tables", link=True)
    assert tables.carried.how == "tables"
    assert (
        json.loads((tmp_path / "t" / "config.json").read_text())["rope_parameters"]["long_factor"]
        == [4.0] * 8
    )
    with pytest.raises(CannotExpress, match="no rope_type for proportional in both majors"):
        convert(
            llama, tmp_path / "m", ScalingRequest(kind="proportional", factor=4), bake="metadata"
        )


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown dtype": ({"dtype": "F61"}, "no dtype 'F61'; near: F16"),
    "a link of cast weights": (
        {"dtype": "F16", "link": True},
        "--link needs weights that stay as they are",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_options(case: str, llama: Path, tmp_path: Path) -> None:
    options, text = REFUSED[case]
    with pytest.raises(RopeconvError, match=text):
        convert(llama, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_writes_nothing_and_refuses_the_same(llama: Path, tmp_path: Path) -> None:
    planned = convert(llama, tmp_path / "out", dry_run=True, dtype="F16")
    assert not list(tmp_path.iterdir())
    assert convert(llama, tmp_path / "out", dtype="F16").size == planned.size
    with pytest.raises(OutputError, match="exists; pass --force"):
        convert(llama, tmp_path / "out", dry_run=True)


def test_an_existing_folder_stays_unless_forced(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(llama, out)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists; pass --force"):
        convert(llama, out)
    assert (out / "mine.txt").exists()
    convert(llama, out, ScalingRequest(kind="yarn", factor=4), force=True)
    assert not (out / "mine.txt").exists()
    assert json.loads((out / "config.json").read_text())["rope_parameters"]["rope_type"] == "yarn"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_force_replaces_models_only_and_never_the_source(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear")
    with pytest.raises(OutputError, match="holds no model"):
        convert(llama, tmp_path / "letters", force=True)
    source = shutil.copytree(llama, tmp_path / "source")
    with pytest.raises(OutputError, match="the source lies there"):
        convert(source, source, force=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        convert(llama, tmp_path / "file", force=True)


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_a_failure_in_the_middle_leaves_the_old_folder_and_no_debris(
    failure: BaseException, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    convert(llama, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def pwrite(*_: Any) -> int:
        raise failure

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        convert(llama, out, force=True, dtype="F16")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_run_left_is_cleaned_by_the_next(llama: Path, tmp_path: Path) -> None:
    debris = tmp_path / ".out.part"
    (debris / "inner").mkdir(parents=True)
    (debris / "model.safetensors").write_bytes(b"half" * 1000)
    convert(llama, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out" / "inner").exists()


def test_two_writers_of_one_name_are_kept_apart(llama: Path, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / ".out.part").mkdir()
    descriptor = os.open(tmp_path / ".out.part", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(OutputError, match="another process is writing it"):
        convert(llama, tmp_path / "out")
    os.close(descriptor)


def test_a_file_system_that_takes_no_more(llama: Path, tmp_path: Path) -> None:
    """The kernel's own refusal in the middle: a file may not grow past 100 kB."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    command = [
        sys.executable,
        "-m",
        "ropeconv.cli",
        "safetensors",
        str(llama),
        "--pi-factor",
        "4",
        "-o",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "not written" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.torch
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_in_the_middle(number: signal.Signals, smollm2: Path, tmp_path: Path) -> None:
    out, part = tmp_path / "out", tmp_path / ".out.part" / "model.safetensors"
    command = [
        sys.executable,
        "-m",
        "ropeconv.cli",
        "safetensors",
        str(smollm2),
        "--dtype",
        "F32",
        "-o",
        str(out),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for _ in range(3000):
        if part.exists() and part.stat().st_size:
            break
        time.sleep(0.005)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert not out.exists()
    if number is signal.SIGKILL:  # what it left is cleaned by the next run
        assert part.parent.exists()
        assert subprocess.run(command, check=False).returncode == 0
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        return
    assert process.returncode == 2
    assert errors.strip() == "ropeconv: interrupted; the previous output, if any, is as it was"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--pi-factor", "0"], "factor is 0.0; give a finite number above 1"),
        (["--scaling", "yarm", "--factor", "4"], "'yarm'; near: yarn"),
        (["--dtype", "q8"], "no dtype 'q8'"),
        (["--pi-factor", "4", "-o", "/proc/no/out"], "no such folder"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(
    arguments: list[str], text: str, llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main(["safetensors", str(llama), "-o", str(tmp_path / "out"), *arguments])
    captured = capsys.readouterr()
    assert done.value.code == 2
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    assert text in captured.err
    assert not list(tmp_path.iterdir())


def test_weights_that_are_no_numbers_are_refused_when_they_are_touched(
    llama: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    source = shutil.copytree(llama, tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][3, 5] = float("nan")
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        RopeconvError,
        match=r"tensor model\.layers\.1\.mlp\.down_proj\.weight, row 3, column 5: value nan",
    ):
        convert(source, tmp_path / "out", dtype="F16")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(("limit", "majors"), [(7.0, ["5", "4"]), (5.0, ["5"])])
def test_a_number_that_transformers_4_has_as_a_constant(
    limit: float, majors: list[str], tmp_path: Path
) -> None:
    source = save_checkpoint(tmp_path / "model", "gpt_oss", context=64, swiglu_limit=limit)
    assert convert(source, tmp_path / "out").details["transformers"] == majors
