"""What cannot be trained is refused before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ropeconv.errors import CheckpointError, ConfigError, OutputError
from ropeconv.longctx.measuring.engine import Engine
from ropeconv.longctx.tune.checkpoint import check_names
from ropeconv.longctx.tune.recipe import Choices, Recipe
from ropeconv.longctx.tune.run import tune
from ropeconv.prepare import prepare
from tests.longctx.tune.tuning import PI4, SHORT, weights

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
    "a kind of no adapters": (
        PI4,
        Recipe(dora=True),
        Choices(),
        ConfigError,
        "--dora is a kind of adapter; give --lora-rank too",
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


def test_an_existing_output_stays(tiny: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(tiny, out)
    with pytest.raises(OutputError, match="--force"):
        tune(tiny, out, scaling=PI4, recipe=SHORT, choices=Choices(text=[text]))
    assert weights(out).keys() == weights(tiny).keys()
