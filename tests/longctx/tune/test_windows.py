"""Training examples, and the rate at which they are learnt."""

from __future__ import annotations

import numpy as np
import pytest

from ropeconv.errors import CheckpointError
from ropeconv.longctx.tune.recipe import Recipe
from ropeconv.longctx.tune.trainer import rate
from ropeconv.longctx.tune.windows import IGNORED, make_windows


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
