"""What `accelerate launch` is set up for: taken as the page on tuning says, or refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ropeconv.errors import ConfigError
from ropeconv.longctx.tune.devices import open_accelerator
from ropeconv.longctx.tune.recipe import Recipe
from tests.longctx.tune.tuning import plain_steps, training_ids

FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
REFUSED = {
    "DeepSpeed": (
        {"ACCELERATE_USE_DEEPSPEED": "true"},
        r"set up for DeepSpeed; tune shards with accelerate launch --use_fsdp --fsdp_version 2",
    ),
    "Megatron": ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "set up for Megatron-LM; tune shards"),
    "other parallelism": (
        {"ACCELERATE_USE_PARALLELISM_CONFIG": "true"},
        "set up for other parallelism; tune shards",
    ),
    "FSDP 1": ({"ACCELERATE_USE_FSDP": "true"}, "FSDP version 1; tune shards with .*version 2"),
    "offloading": (
        {**FSDP, "FSDP_OFFLOAD_PARAMS": "true"},
        "leave --fsdp_offload_params out and take more processes",
    ),
    "its checkpointing": (
        {**FSDP, "FSDP_ACTIVATION_CHECKPOINTING": "true"},
        "give tune --gradient-checkpointing",
    ),
    "ignored modules": ({**FSDP, "FSDP_IGNORED_MODULES": "lm_head"}, "leave --fsdp_ignored_modul"),
    "shards by size": (
        {**FSDP, "FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP"},
        "leave --fsdp_auto_wrap_policy out",
    ),
    "compiled modules": ({**FSDP, "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, "leave --dynamo_backe"),
    "a word of FSDP 1": (
        {**FSDP, "FSDP_RESHARD_AFTER_FORWARD": "FULL_SHARD"},
        "accelerate does not take its FSDP settings .*; tune shards with",
    ),
    "no device": (
        {"WORLD_SIZE": "2"},
        "2 processes were launched, and accelerate sees no device for them; on CPUs set ACCELERATE",
    ),
    "another precision": (
        {"ACCELERATE_MIXED_PRECISION": "fp16"},
        "mixed precision fp16; set it to no and give tune --precision",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_train_something_else_is_refused(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, words = REFUSED[case]
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words):
        open_accelerator(Recipe())


def test_settings_that_change_nothing_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM"):
        monkeypatch.setenv(name, "false")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert open_accelerator(Recipe()).num_processes == 1


def test_the_launcher_of_the_page_on_a_real_model(
    smollm2: Path, text: Path, tmp_path: Path
) -> None:
    """The plain loop's rope is the model's own but for the scaling: PI x2 of 8192 tokens."""
    out = tmp_path / "out"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["--use_fsdp", "--fsdp_version", "2", "--num_processes", "2", "--num_machines", "1"]
    launcher += ["--main_process_port", str(port), "--mixed_precision", "no"]
    tune = ["tune", str(smollm2), "--pi-factor", "2", "--text", str(text), "--batch-size", "2"]
    tune += ["--steps", "2", "--warmup", "1", "--window", "64", "--precision", "fp32"]
    tune += ["--held-out-tokens", "64", "--learning-rate", "1e-4", "--quiet", "-o", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *launcher, "-m", "ropeconv", *tune],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((out / "tune.json").read_text())
    assert (len(record["processes"]["peak_memory"]), record["processes"]["sharded"]) == (2, True)
    recipe = Recipe(steps=2, warmup=1, batch=2, window=64, precision="fp32")
    config = json.loads((smollm2 / "config.json").read_text())
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": config["rope_theta"]}
    ids = training_ids(smollm2, text)
    expected = plain_steps(smollm2, tmp_path, recipe, ids, rope=rope, context=16384)
    losses = [step["loss"] for step in record["steps"]]
    np.testing.assert_allclose(losses, expected.losses, rtol=0, atol=1e-4)
