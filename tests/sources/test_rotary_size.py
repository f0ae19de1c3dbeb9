"""MiniMax M2's released configs say how many values of a head rotate, not which share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ropeconv.config.understand import understand
from ropeconv.errors import RopeConfigError
from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import save_checkpoint

pytestmark = pytest.mark.torch


def released(folder: Path, **changes: int | None) -> Path:
    source = save_checkpoint(folder, "minimax_m2", context=256)
    config = json.loads((source / "config.json").read_text())
    del config["rope_parameters"]
    config |= {"rope_theta": 20000.0, "rotary_dim": 16} | changes
    kept = {key: value for key, value in config.items() if value is not None}
    (source / "config.json").write_text(json.dumps(kept))
    return source


def test_the_share_is_the_one_that_transformers_rotates(tmp_path: Path) -> None:
    from transformers import AutoConfig
    from transformers.models.minimax_m2 import modeling_minimax_m2 as minimax

    source = released(tmp_path / "model")
    rotary = minimax.MiniMaxM2RotaryEmbedding(AutoConfig.from_pretrained(source))
    found = understand(open_checkpoint(source)).main_frequencies.inv_freq
    assert len(found) == 8  # of the 16 that a whole head has
    assert np.allclose(found, rotary.inv_freq.numpy(), rtol=1e-6, atol=0)


def test_a_size_without_a_head_to_share_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RopeConfigError, match="rotary_dim 16 and no head_dim"):
        understand(open_checkpoint(released(tmp_path / "model", head_dim=None)))
