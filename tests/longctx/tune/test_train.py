"""A run in one process: a loop that a plain one confirms."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ropeconv.cli import main
from ropeconv.longctx.tune.recipe import Choices
from ropeconv.longctx.tune.run import tune
from ropeconv.longctx.tune.windows import make_windows
from tests.longctx import plain
from tests.longctx.tune.tuning import PI4, ROPE, SHORT, plain_steps, training_ids, weights


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
        np.testing.assert_allclose(value, expected.weights[name], atol=2e-5, err_msg=name)
    assert [step.loss for step in tuned.steps] == pytest.approx(expected.losses, abs=2e-5)
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


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_touch_attention_norms_and_embeddings_alone(
    dora: bool, tiny: Path, text: Path, tmp_path: Path
) -> None:
    recipe = replace(SHORT, batch=1, warmup=0, lora_rank=4, dora=dora, learning_rate=1e-2)
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
    # DoRA's lengths of the rows change every row besides
    assert (np.linalg.matrix_rank(change, tol=1e-5) == 4) is not dora
    expected_weights = plain_steps(tiny, tmp_path, recipe, training_ids(tiny, text)).weights
    for name, value in found.items():
        np.testing.assert_allclose(value, expected_weights[name], atol=2e-4, err_msg=name)


@pytest.mark.parametrize("name", ["bf16", "F16"])
def test_types_of_the_written_weights_in_any_case(
    name: str, tiny: Path, text: Path, tmp_path: Path
) -> None:
    command = ["tune", str(tiny), "--pi-factor", "4", "--text", str(text)]
    command += ["--held-out-tokens", "300", "--window", "64", "--steps", "1", "--warmup", "0"]
    with pytest.raises(SystemExit) as done:
        main([*command, "--dtype", name, "-o", str(tmp_path / "out"), "--quiet"])
    assert done.value.code == 0
    header = (tmp_path / "out" / "model.safetensors").read_bytes()[:400].decode(errors="ignore")
    assert f'"dtype":"{name.upper()}"' in header
