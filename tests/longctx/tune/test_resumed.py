"""Runs that are cut, and go on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ropeconv.errors import OutputError, RopeconvError
from ropeconv.longctx.tune.recipe import Choices
from ropeconv.longctx.tune.run import tune
from tests.longctx.tune.tuning import PI4, SHORT, weights


@pytest.mark.torch
def test_an_interrupted_run_goes_on_to_the_same_weights(
    tiny: Path, text: Path, tmp_path: Path
) -> None:
    """The command's own process is interrupted; the rest is asked for in this one."""
    recipe = replace(SHORT, steps=400, batch=1)
    choices = Choices(text=[text], tokens=300, dtype="F32")
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    tune(tiny, straight, scaling=PI4, recipe=recipe, choices=choices)
    command = ["tune", str(tiny), "--pi-factor", "4", "--text", str(text), "--window", "64"]
    command += ["--held-out-tokens", "300", "--steps", "400", "--warmup", "2", "--dtype", "F32"]
    command += ["--precision", "fp32", "--learning-rate", "1e-3", "--save-every", "1", "--quiet"]
    process = start(*command, "-o", str(cut))
    deadline = time.monotonic() + 120
    while not (tmp_path / "cut.tuning" / "state.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "go on with --resume" in said
    assert not cut.exists()
    with pytest.raises(OutputError, match="holds an interrupted run; go on with --resume"):
        tune(tiny, cut, scaling=PI4, recipe=recipe, choices=choices)
    again = replace(choices, resume=True)
    with pytest.raises(OutputError, match="holds another run"):
        tune(tiny, cut, scaling=PI4, recipe=replace(recipe, seed=9), choices=again)
    tune(tiny, cut, scaling=PI4, recipe=recipe, choices=again)
    first, second = weights(straight), weights(cut)
    assert all((first[name] == second[name]).all() for name in first)


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ropeconv", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("changed", ["text", "held_out"])
def test_a_resumed_run_shares_its_texts(
    changed: str, tiny: Path, text: Path, tmp_path: Path
) -> None:
    """Another text as long would go unseen; a rate that no training survives cuts the first run."""
    files = {"text": tmp_path / "text.txt", "held_out": tmp_path / "held.txt"}
    for file in files.values():
        file.write_text(text.read_text()[:4000])
    files["held_out"].write_text(text.read_text()[4000:6000])
    choices = Choices(text=[files["text"]], held_out=[files["held_out"]], tokens=300, save_every=1)
    out, state = tmp_path / "out", tmp_path / "out.tuning"
    tune(tiny, out, scaling=PI4, recipe=SHORT, choices=replace(choices, dtype="F32"))
    shutil.rmtree(out)
    with pytest.raises(OutputError, match="no interrupted run is there"):
        tune(tiny, out, scaling=PI4, recipe=SHORT, choices=replace(choices, resume=True))
    half = replace(SHORT, learning_rate=float("inf"))
    with pytest.raises(RopeconvError, match="the loss is nan"):
        tune(tiny, out, scaling=PI4, recipe=half, choices=choices)
    assert state.exists()
    told = files[changed].read_text()
    files[changed].write_text(told.replace(" ", "e", 1)[: len(told)])
    with pytest.raises(OutputError, match="holds another run"):
        tune(tiny, out, scaling=PI4, recipe=half, choices=replace(choices, resume=True))
    files[changed].write_text(told)
    with pytest.raises(RopeconvError, match="the loss is nan"):
        tune(tiny, out, scaling=PI4, recipe=half, choices=replace(choices, resume=True))


def test_a_state_that_is_cut_short_is_refused(tiny: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    choices = Choices(text=[text], tokens=300, save_every=1)
    with pytest.raises(RopeconvError, match="stopped after step 1 of 4"):
        tune(tiny, out, scaling=PI4, recipe=SHORT, choices=choices, progress=pressing(once=True))
    state = tmp_path / "out.tuning" / "state.pt"
    state.write_bytes(state.read_bytes()[:-1000])
    again = replace(choices, resume=True)
    with pytest.raises(
        OutputError, match=r"state.pt: is no whole state \(.*; begin anew with --forc"
    ):
        tune(tiny, out, scaling=PI4, recipe=SHORT, choices=again)


def pressing(*, once: bool) -> Any:
    """Ctrl-C after the first step, handed on by a launcher a moment later, or pressed again."""

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        if (stage, done) == ("training", 1):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1 if once else 1.2)
            os.kill(os.getpid(), signal.SIGTERM)

    return progress


def test_a_key_that_a_launcher_hands_on_is_one_press(
    tiny: Path, text: Path, tmp_path: Path
) -> None:
    choices = Choices(text=[text], tokens=300)
    for once, kind in ((True, RopeconvError), (False, KeyboardInterrupt)):
        with pytest.raises(kind):
            tune(
                tiny,
                tmp_path / f"out-{once}",
                scaling=PI4,
                recipe=SHORT,
                choices=choices,
                progress=pressing(once=once),
            )
    assert (tmp_path / "out-True.tuning" / "state.pt").exists()
    assert not (tmp_path / "out-False.tuning" / "state.pt").exists()
