"""Training: examples, a loop that a plain one confirms, interruption, adapters."""

from __future__ import annotations

import json
import os
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

from ropeconv.cli import main
from ropeconv.errors import CheckpointError, ConfigError, OutputError, RopeconvError
from ropeconv.extend import ScalingRequest
from ropeconv.longctx.measuring.engine import Engine
from ropeconv.longctx.tune.checkpoint import check_names
from ropeconv.longctx.tune.recipe import Choices, Recipe
from ropeconv.longctx.tune.run import tune
from ropeconv.longctx.tune.trainer import BETAS, rate
from ropeconv.longctx.tune.windows import IGNORED, make_windows
from ropeconv.prepare import prepare
from tests.longctx import plain

PI4 = ScalingRequest("linear", 4.0)
ROPE = {"rope_type": "linear", "factor": 4.0, "rope_theta": 20000.0}
SHORT = Recipe(steps=4, batch=2, window=64, warmup=2, precision="fp32", learning_rate=1e-3)


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def test_examples_skip_positions_and_keep_the_text() -> None:
    text = np.arange(5000) % 4096
    windows = make_windows(list(text), length=128, context=2048, skip=True, seed=5)
    reached = 0
    for number in range(200):
        found = windows.example(number)
        steps = np.diff(found.positions)
        assert found.positions[0] == 0
        assert found.positions[-1] < 2048
        assert (steps >= 1).all()
        assert (steps > 1).sum() <= 1
        (cut,) = np.flatnonzero(found.labels == IGNORED)
        kept = np.delete(np.arange(128), cut)
        assert ((found.labels[kept] - found.ids[kept]) % 4096 == 1).all()
        assert cut + 1 <= 64
        reached = max(reached, int(found.positions[-1]))
    assert reached > 1900  # every distance is met, up to L'
    again = windows.example(7)
    assert (again.ids == windows.example(7).ids).all()
    assert (again.ids != windows.example(8).ids).any()


def test_full_windows_are_consecutive() -> None:
    found = make_windows(list(range(600)), length=256, context=256, skip=False, seed=0).example(3)
    assert (found.positions == np.arange(256)).all()
    assert (found.labels == found.ids + 1).all()


@pytest.mark.parametrize(
    ("length", "words"),
    [(3, "--window 3: give 4 to 256"), (257, "--window 257"), (200, "has 150 tokens")],
)
def test_windows_that_do_not_fit(length: int, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        make_windows(list(range(150)), length=length, context=256, skip=True, seed=0)


def test_the_rate_warms_up_and_falls() -> None:
    recipe = Recipe(steps=100, warmup=10, schedule="cosine", learning_rate=1.0)
    rates = [rate(recipe, step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert np.argmax(rates) == 9
    assert 0.1 <= rates[-1] < 0.11
    assert rate(
        Recipe(steps=100, warmup=0, schedule="linear", learning_rate=1.0), 50
    ) == pytest.approx(0.5)
    assert rate(Recipe(steps=100, warmup=0, schedule="constant", learning_rate=1.0), 99) == 1.0


def plain_steps(folder: Path, work: Path, recipe: Recipe, ids: list[int]) -> dict[str, Any]:
    """The same recipe in transformers' and torch's own words, the whole batch at once."""
    import torch

    model = plain.load(folder, ROPE, context=1024, work=work).train()
    windows = make_windows(ids, length=recipe.window, context=1024, skip=True, seed=recipe.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=BETAS, weight_decay=recipe.weight_decay
    )
    for step in range(recipe.steps):
        found = [windows.example(step * recipe.batch + n) for n in range(recipe.batch)]
        tokens, positions, labels = (
            torch.from_numpy(np.stack([getattr(e, name) for e in found]))
            for name in ("ids", "positions", "labels")
        )
        logits = model(
            tokens, position_ids=positions, attention_mask=torch.ones_like(tokens)
        ).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.param_groups[0]["lr"] = rate(recipe, step)
        optimizer.step()
        optimizer.zero_grad()
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}


def training_ids(folder: Path, text: Path) -> list[int]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [*tokenizer(text.read_text())["input_ids"], tokenizer.eos_token_id]


def test_a_run_is_that_of_a_plain_loop(tiny: Path, text: Path, tmp_path: Path) -> None:
    tuned = tune(
        tiny,
        tmp_path / "out",
        scaling=PI4,
        recipe=SHORT,
        choices=Choices(text=[text], tokens=300, dtype="F32"),
    )
    assert tuned is not None
    found, begun = weights(tmp_path / "out"), weights(tiny)
    expected = plain_steps(tiny, tmp_path, SHORT, training_ids(tiny, text))
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], atol=2e-5, err_msg=name)
    moved = max(np.abs(found[name] - begun[name]).max() for name in found)
    assert moved > 1e-3  # the check can fail
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["max_position_embeddings"] == 1024
    assert config["rope_parameters"]["factor"] == 4.0
    assert not (tmp_path / "out.tuning").exists()


def test_the_losses_it_reports_are_those_of_the_written_folder(
    tiny: Path, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    same = tmp_path / "same.txt"  # under another name: what is learnt by heart shows at once
    same.write_text(text.read_text())
    choices = Choices(text=[text], held_out=[same], tokens=300, dtype="BF16")
    tuned = tune(tiny, out, scaling=PI4, recipe=SHORT, choices=choices)
    assert tuned is not None
    ids = training_ids(tiny, text)[:300]
    before = plain.losses(plain.load(tiny, ROPE, context=1024, work=tmp_path), ids).mean()
    after = plain.losses(plain.load(out), ids).mean()  # bfloat16 weights, as they lie there
    assert tuned.whole_before.loss == pytest.approx(before, abs=1e-4)
    assert tuned.whole_after.loss == pytest.approx(after, abs=1e-4)
    assert after < before - 0.03
    record = json.loads((out / "tune.json").read_text())
    assert record["held_out"]["perplexity_after"] == pytest.approx(np.exp(after), rel=1e-3)
    assert [step["step"] for step in record["steps"]] == [1, 2, 3, 4]


def test_checkpointing_changes_nothing_and_bf16_little(
    tiny: Path, text: Path, tmp_path: Path
) -> None:
    found = {}
    for name, precision, checkpointing in (
        ("plain", "fp32", False),
        ("saved", "fp32", True),
        ("bf16", "bf16", False),
    ):
        choices = Choices(text=[text], tokens=300, dtype="F32", checkpointing=checkpointing)
        tune(
            tiny,
            tmp_path / name,
            scaling=PI4,
            recipe=replace(SHORT, precision=precision),
            choices=choices,
        )
        found[name] = weights(tmp_path / name)
    begun = weights(tiny)
    for name, value in found["plain"].items():
        np.testing.assert_allclose(found["saved"][name], value, atol=1e-6, err_msg=name)
        moved = np.abs(value - begun[name])
        assert np.abs(found["bf16"][name] - value).mean() < 0.25 * moved.mean() + 1e-6
    assert any((found["bf16"][name] != value).any() for name, value in found["plain"].items())


def test_full_windows_reach_the_context(tiny: Path, text: Path, tmp_path: Path) -> None:
    recipe = replace(SHORT, skip=False, steps=1, warmup=0, batch=1)
    tuned = tune(
        tiny, tmp_path / "out", scaling=PI4, recipe=recipe, choices=Choices(text=[text], tokens=300)
    )
    assert tuned is not None
    ids = make_windows(
        training_ids(tiny, text), length=1024, context=1024, skip=False, seed=0
    ).example(0)
    whole = [*ids.ids, int(ids.labels[-1])]
    expected = plain.losses(plain.load(tiny, ROPE, context=1024, work=tmp_path), whole).mean()
    assert tuned.steps[0].loss == pytest.approx(expected, abs=1e-4)


def test_adapters_touch_attention_norms_and_embeddings_alone(
    tiny: Path, text: Path, tmp_path: Path
) -> None:
    recipe = Recipe(steps=4, window=64, warmup=0, lora_rank=4, precision="fp32", learning_rate=1e-2)
    tuned = tune(
        tiny,
        tmp_path / "out",
        scaling=PI4,
        recipe=recipe,
        choices=Choices(text=[text], tokens=300, dtype="F32"),
    )
    assert tuned is not None
    found, begun = weights(tmp_path / "out"), weights(tiny)
    assert found.keys() == begun.keys()
    moved = {name for name in found if np.abs(found[name] - begun[name]).max() > 0}
    expected = {
        name
        for name in found
        if any(part in name for part in ("self_attn", "norm", "embed_tokens"))
    }
    assert moved == expected
    change = (
        found["model.layers.0.self_attn.q_proj.weight"]
        - begun["model.layers.0.self_attn.q_proj.weight"]
    )
    assert np.linalg.matrix_rank(change, tol=1e-5) == 4


def run_cli(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ropeconv", *arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


@pytest.mark.torch
def test_an_interrupted_run_goes_on_to_the_same_weights(
    tiny: Path, text: Path, tmp_path: Path
) -> None:
    common = [
        "tune",
        str(tiny),
        "--pi-factor",
        "4",
        "--text",
        str(text),
        "--held-out-tokens",
        "300",
        "--window",
        "64",
    ]
    common += [
        "--steps",
        "400",
        "--warmup",
        "2",
        "--precision",
        "fp32",
        "--dtype",
        "F32",
        "--quiet",
    ]
    straight = run_cli(*common, "-o", str(tmp_path / "straight"))
    straight.communicate()
    assert straight.returncode == 0
    cut = run_cli(*common, "-o", str(tmp_path / "cut"), "--save-every", "1")
    state = tmp_path / "cut.tuning" / "state.pt"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    cut.send_signal(signal.SIGINT)
    _, said = cut.communicate(timeout=120)
    assert cut.returncode == 2
    assert "go on with --resume" in said
    assert not (tmp_path / "cut").exists()
    refused = run_cli(*common, "-o", str(tmp_path / "cut"))
    assert "holds an interrupted run; go on with --resume" in refused.communicate()[1]
    other = run_cli(*common, "-o", str(tmp_path / "cut"), "--resume", "--seed", "9")
    assert "holds another run" in other.communicate()[1]
    assert (refused.returncode, other.returncode) == (2, 2)
    resumed = run_cli(*common, "-o", str(tmp_path / "cut"), "--resume")
    resumed.communicate()
    assert resumed.returncode == 0
    first, second = weights(tmp_path / "straight"), weights(tmp_path / "cut")
    assert all((first[name] == second[name]).all() for name in first)


@pytest.mark.torch
def test_two_processes_train_as_one(tiny: Path, text: Path, tmp_path: Path) -> None:
    common = [
        "tune",
        str(tiny),
        "--pi-factor",
        "4",
        "--text",
        str(text),
        "--held-out-tokens",
        "300",
        "--window",
        "64",
    ]
    common += [
        "--steps",
        "4",
        "--batch-size",
        "2",
        "--warmup",
        "2",
        "--precision",
        "fp32",
        "--dtype",
        "F32",
        "--quiet",
    ]
    alone = run_cli(*common, "-o", str(tmp_path / "alone"))
    alone.communicate()
    assert alone.returncode == 0
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
    assert done.returncode == 0, done.stdout + done.stderr
    first, second, begun = (
        weights(folder) for folder in (tmp_path / "alone", tmp_path / "two", tiny)
    )
    for name in first:
        np.testing.assert_allclose(first[name], second[name], atol=2e-5, err_msg=name)
    assert max(np.abs(first[name] - begun[name]).max() for name in first) > 1e-4


REFUSED = {
    "nothing to extend": (None, SHORT, Choices(), ConfigError, "its context is the trained one"),
    "no steps": (PI4, Recipe(steps=0), Choices(), ConfigError, "--steps 0"),
    "a short held-out text": (
        PI4,
        SHORT,
        Choices(tokens=10**6),
        CheckpointError,
        "1000000 are needed",
    ),
    "nothing to resume": (
        PI4,
        SHORT,
        Choices(resume=True),
        OutputError,
        "no interrupted run is there",
    ),
    "a window past L'": (
        PI4,
        Recipe(window=5000),
        Choices(),
        CheckpointError,
        "--window 5000: give 4 to 1024",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_refused_before_anything_is_written(
    case: str, tiny: Path, text: Path, tmp_path: Path
) -> None:
    request, recipe, choices, kind, words = REFUSED[case]
    choices = Choices(**{**vars(choices), "text": [text]})
    with pytest.raises(kind, match=words):
        tune(tiny, tmp_path / "out", scaling=request, recipe=recipe, choices=choices)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_could_not_be_written_are_found_before_the_training(tiny: Path) -> None:
    """A network that has other names than the checkpoint."""
    import torch

    model = prepare(str(tiny), PI4)
    with pytest.raises(
        CheckpointError, match=r"no weight called model\..*; this family cannot be tuned"
    ):
        check_names(model, torch.nn.Linear(2, 2))
    check_names(model, Engine(model).network)


def test_a_text_that_is_trained_on_is_not_held_out(tiny: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is in --text and in --held-out"):
        tune(
            tiny,
            tmp_path / "out",
            scaling=PI4,
            recipe=SHORT,
            choices=Choices(text=[text], held_out=[text]),
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


@pytest.mark.parametrize("name", ["bf16", "F16"])
def test_types_of_the_written_weights_in_any_case(
    name: str, tiny: Path, text: Path, tmp_path: Path
) -> None:
    command = [
        "tune",
        str(tiny),
        "--pi-factor",
        "4",
        "--text",
        str(text),
        "--held-out-tokens",
        "300",
        "--window",
        "64",
    ]
    with pytest.raises(SystemExit) as done:
        main(
            [
                *command,
                "--steps",
                "1",
                "--warmup",
                "0",
                "--dtype",
                name,
                "-o",
                str(tmp_path / "out"),
                "--quiet",
            ]
        )
    assert done.value.code == 0
    header = (tmp_path / "out" / "model.safetensors").read_bytes()[:400].decode(errors="ignore")
    assert f'"dtype":"{name.upper()}"' in header


def test_an_existing_output_stays(tiny: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(tiny, out)
    with pytest.raises(OutputError, match="--force"):
        tune(tiny, out, scaling=PI4, recipe=SHORT, choices=Choices(text=[text]))
    assert weights(out).keys() == weights(tiny).keys()
