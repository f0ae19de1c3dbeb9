"""A CUDA device computes what transformers does on the CPU: tune, compare, search, verify.

Each check has its planted fault: another scaling must not pass.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.command_line import run
from tests.longctx import plain
from tests.longctx.tune.tuning import (
    SHORT,
    Trained,
    plain_steps,
    seen_to_fail,
    training_ids,
    weights,
)

pytestmark = [pytest.mark.gpu, pytest.mark.torch]

TUNE = ["--window", "64", "--steps", "4", "--batch-size", "2", "--warmup", "2", "--dtype", "F32"]
TUNE += ["--learning-rate", "1e-3", "--held-out-tokens", "300", "--json"]
# Sums in another order, and none of TensorFloat-32's rounding: torch leaves that out by itself
LOSS = 1e-4


@pytest.fixture(autouse=True)
def on_the_device() -> Iterator[None]:
    """What the test ran must have taken the device's memory, or it ran elsewhere."""
    import torch

    torch.cuda.reset_peak_memory_stats()
    begun = torch.cuda.max_memory_allocated()
    yield
    assert torch.cuda.max_memory_allocated() > begun


def pi(factor: float) -> dict[str, Any]:
    return {"rope_type": "linear", "factor": factor, "rope_theta": 20000.0}


def trains_as(record: dict[str, Any], expected: Trained, *, loss: float = LOSS) -> None:
    found = [step["loss"] for step in record["steps"]]
    np.testing.assert_allclose(found, expected.losses, rtol=0, atol=loss)


@pytest.mark.parametrize("kind", ["fp32", "bf16", "lora"])
def test_tune(
    kind: str, tiny: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, ids = tmp_path / "out", training_ids(tiny, text)
    recipe = {
        "fp32": SHORT,
        "bf16": replace(SHORT, precision="bf16"),
        "lora": replace(SHORT, lora_rank=4, dora=True),
    }[kind]
    extra = ["--lora-rank", "4", "--dora", "--gradient-checkpointing"] if kind == "lora" else []
    command = ["tune", str(tiny), "--pi-factor", "4", "--text", str(text), *TUNE, *extra]
    told, _ = run([*command, "--precision", recipe.precision, "-o", str(out)], capsys)
    expected = plain_steps(tiny, tmp_path, recipe, ids)
    trains_as(json.loads(told), expected, loss=0.02 if kind == "bf16" else LOSS)
    if kind == "fp32":  # a gradient of almost nought may turn, and with it one weight's first step
        begun = weights(tiny)
        for name, value in weights(out).items():
            moved = np.abs(value - begun[name]).mean()
            assert np.abs(value - expected.weights[name]).mean() < 0.01 * moved
    other = plain_steps(tiny, tmp_path, recipe, ids, rope=pi(2.0))
    with seen_to_fail():
        trains_as(json.loads(told), other)


def test_tune_shares_weights_of_one_device(tiny: Path, text: Path, tmp_path: Path) -> None:
    """NCCL among one process: what more of them do besides is tested among CPUs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "out"
    launcher = ["--use_fsdp", "--fsdp_version", "2", "--num_processes", "1", "--num_machines", "1"]
    launcher += ["--main_process_port", str(port), "--mixed_precision", "no"]
    tune = ["tune", str(tiny), "--pi-factor", "4", "--text", str(text), *TUNE]
    tune += ["--precision", "fp32", "-o", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *launcher, "-m", "ropeconv", *tune],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((out / "tune.json").read_text())
    assert record["processes"]["sharded"]
    trains_as(record, plain_steps(tiny, tmp_path, SHORT, training_ids(tiny, text)))
    device_of_this_test()


def device_of_this_test() -> None:
    """The process was another, so this one has allocated nothing."""
    import torch

    torch.zeros(1024, device="cuda")


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 2e-4), ("bfloat16", 6e-3)])
def test_compare(
    dtype: str,
    limit: float,
    tiny: Path,
    text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["compare", str(tiny), "--text", str(text), "--tokens", "512", "--factors", "2"]
    command += ["--methods", "none,pi", "--passkeys", "2", "--dtype", dtype, "--json"]
    told, _ = run([*command, "-o", str(tmp_path / "out")], capsys)
    ids = training_ids(tiny, text)[:512]
    found = {row["label"]: row["whole"]["loss"] for row in json.loads(told)["rows"]}
    none, pi2 = (
        plain.losses(plain.load(tiny, pi(factor), context=512, work=tmp_path), ids).mean()
        for factor in (1.0, 2.0)
    )
    assert abs(none - pi2) > 2 * limit
    assert found["none"] == pytest.approx(none, abs=limit)
    assert found["pi x2"] == pytest.approx(pi2, abs=limit)


def test_search(tiny: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The factors that it writes give the held-out loss that it tells."""
    out = tmp_path / "factors.json"
    command = ["search", str(tiny), "--factor", "4", "--evaluations", "40", "--guide-prompts", "2"]
    command += ["--guide-tokens", "600", "--held-out", str(text), "--held-out-tokens", "600"]
    run([*command, "--quiet", "-o", str(out)], capsys)
    written = json.loads(out.read_text())
    held = written["search"]["held_out_perplexity_past_trained"]
    ids = training_ids(tiny, text)[:600]
    searched = {"rope_theta": 20000.0, **written["rope_parameters"]}
    for name, rope in (("searched", searched), ("pi x4", pi(4.0))):
        model = plain.load(tiny, rope, context=1024, work=tmp_path)
        loss = plain.losses(model, ids)[255:].mean()
        assert np.log(held[name]) == pytest.approx(loss, abs=1e-3)
    with seen_to_fail():
        assert np.log(held["searched"]) == pytest.approx(loss, abs=1e-3)


def test_verify_takes_the_device_for_the_reference(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder for transformers, whose runtime is PyTorch too."""
    right, wrong = tmp_path / "x2", tmp_path / "x3"
    run(["safetensors", str(tiny), "--pi-factor", "2", "-o", str(right), "--quiet"], capsys)
    run(["safetensors", str(tiny), "--pi-factor", "3", "-o", str(wrong), "--quiet"], capsys)
    told, _ = run(["verify", str(right), "--device", "cuda", "--json"], capsys)
    assert json.loads(told)["device"] == "cuda"
    config = (wrong / "config.json").read_bytes()
    (right / "config.json").write_bytes(config)
    run(["verify", str(right), "--device", "cuda"], capsys, code=1)


def test_verify_runs_the_graph_on_the_device(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tmp_path / "x2", tmp_path / "x4"
    run(["onnx", str(tiny), "--pi-factor", "2", "--type", "fp32", "-o", str(out)], capsys)
    run(["onnx", str(tiny), "--pi-factor", "4", "--type", "fp32", "-o", str(other)], capsys)
    run(["verify", str(out), "--provider", "cuda", "--device", "cuda", "--json"], capsys)
    for name in ("model.onnx", "model.onnx_data"):
        if (other / "onnx" / name).exists():
            (out / "onnx" / name).write_bytes((other / "onnx" / name).read_bytes())
    run(["verify", str(out), "--provider", "cuda", "--device", "cuda"], capsys, code=1)
