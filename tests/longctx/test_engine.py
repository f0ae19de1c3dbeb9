"""Losses under an exchanged rotary embedding are those of transformers under that config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.extend import ScalingRequest
from ropeconv.longctx.measuring.bands import measure_band, split_bands, standard_error
from ropeconv.longctx.measuring.engine import Engine
from ropeconv.prepare import prepare
from tests.checkpoints import save_checkpoint
from tests.longctx import plain

THETA = 20000.0
PAIRS = 8
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0] * PAIRS,
    "long_factor": [1.0 + 0.4 * i for i in range(PAIRS)],
}
CASES: dict[str, tuple[ScalingRequest, dict[str, Any]]] = {
    "linear": (
        ScalingRequest("linear", 4.0),
        {"rope_type": "linear", "factor": 4.0, "rope_theta": THETA},
    ),
    "yarn": (
        ScalingRequest("yarn", 4.0),
        {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 256,
            "rope_theta": THETA,
        },
    ),
    "longrope": (
        ScalingRequest(None, 4.0, huggingface=LONG),
        LONG | {"factor": 4.0, "original_max_position_embeddings": 256, "rope_theta": THETA},
    ),
}


def random_ids(count: int) -> list[int]:
    return [int(i) for i in np.random.default_rng(3).integers(3, 384, count)]


@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_of_transformers(name: str, tiny: Path, tmp_path: Path) -> None:
    request, rope = CASES[name]
    ids, model = random_ids(700), prepare(str(tiny), request)
    engine = Engine(prepare(str(tiny), None))
    unscaled = engine.losses(ids)
    engine.use(model)
    expected = plain.losses(plain.load(tiny, rope, context=1024, work=tmp_path), ids)
    np.testing.assert_allclose(engine.losses(ids), expected, atol=2e-4)
    assert np.abs(unscaled - expected).max() > 0.05  # the check can fail


def test_the_short_table_of_longrope_serves_short_texts(tiny: Path, tmp_path: Path) -> None:
    engine = Engine(prepare(str(tiny), CASES["longrope"][0]))
    ids = random_ids(200)
    expected = plain.losses(
        plain.load(tiny, CASES["longrope"][1], context=1024, work=tmp_path), ids
    )
    np.testing.assert_allclose(engine.losses(ids), expected, atol=2e-4)


def test_positions_that_jump(tiny: Path) -> None:
    ids, positions = random_ids(300), [*range(100), *range(600, 800)]
    engine = Engine(prepare(str(tiny), None))
    found = engine.losses(ids, positions=positions)
    np.testing.assert_allclose(found, plain.losses(plain.load(tiny), ids, positions), atol=2e-4)
    assert np.abs(found - engine.losses(ids)).max() > 0.05


def test_layer_types_keep_their_own_tables(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "gemma", "gemma3_text", context=256)
    model, ids = prepare(str(folder), ScalingRequest("linear", 4.0)), random_ids(500)
    sliding = {"rope_type": "default", "rope_theta": 10000.0}
    full = {"rope_type": "linear", "factor": 4.0, "rope_theta": THETA}
    rope = {"full_attention": full, "sliding_attention": sliding}
    engine = Engine(prepare(str(folder), None))
    engine.use(model)
    expected = plain.losses(plain.load(folder, rope, context=1024, work=tmp_path), ids)
    np.testing.assert_allclose(engine.losses(ids), expected, atol=5e-4)


def test_plain_tokens_turn_unscaled(tiny: Path) -> None:
    """All plain: the unscaled model; none plain: the scaled one."""
    ids, scaled = random_ids(400), prepare(str(tiny), CASES["linear"][0])
    engine = Engine(prepare(str(tiny), None))
    engine.use(scaled, plain_tokens=400)
    np.testing.assert_allclose(engine.losses(ids), plain.losses(plain.load(tiny), ids), atol=2e-4)
    engine.use(scaled, plain_tokens=100)
    some = engine.losses(ids)
    engine.use(scaled)
    assert np.abs(engine.losses(ids) - some).max() > 0.01


def test_bands_cover_every_token_once() -> None:
    losses = np.arange(1, 1000, dtype=np.float32)
    bands = split_bands(losses, 250)
    assert [(band.start, band.stop, band.tokens) for band in bands] == [
        (0, 250, 249),
        (250, 500, 250),
        (500, 750, 250),
        (750, 1000, 250),
    ]
    assert sum(band.loss * band.tokens for band in bands) == pytest.approx(float(losses.sum()))
    assert measure_band(losses, 250, 500).loss == pytest.approx(float(np.arange(250, 500).mean()))


def test_the_standard_error_is_that_of_independent_blocks() -> None:
    """Where neighbours repeat, the naive error is too small; means of distant blocks tell it."""
    rng = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(200):
        series = np.repeat(rng.normal(size=64), 64)
        means.append(series.mean())
        errors.append(standard_error(series))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.15)
    assert np.isnan(standard_error(np.array([1.0])))
