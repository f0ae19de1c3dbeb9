"""HunYuan's `dynamic` with an `alpha`: a base that stays, stated beside a rope_theta of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ropeconv.config.understand import understand
from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import save_checkpoint

pytestmark = pytest.mark.torch


def test_the_base_is_the_one_that_transformers_computes(tmp_path: Path) -> None:
    from transformers import AutoConfig
    from transformers.models.hunyuan_v1_dense import modeling_hunyuan_v1_dense as hunyuan

    source = save_checkpoint(tmp_path / "model", "hunyuan_v1_dense", context=256)
    config = json.loads((source / "config.json").read_text())
    del config["rope_parameters"]
    scaling = {"type": "dynamic", "alpha": 1000.0, "factor": 1.0, "beta_fast": 32, "beta_slow": 1}
    config |= {"rope_theta": 10000.0, "rope_scaling": scaling}
    (source / "config.json").write_text(json.dumps(config))
    rotary = hunyuan.HunYuanDenseV1RotaryEmbedding(AutoConfig.from_pretrained(source))
    found = understand(open_checkpoint(source)).main_frequencies.inv_freq
    assert np.allclose(found, rotary.inv_freq.numpy(), rtol=1e-6, atol=0)
    unscaled = 10000.0 ** (-np.arange(0, 16, 2) / 16)
    assert not np.allclose(found, unscaled, rtol=1e-3)
