"""A fault in a tensor of a layer that is not attention: the weights show it, and so do llama.cpp's
logits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ropeconv.api import convert, verify
from ropeconv.extend import ScalingRequest
from tests.checkpoints import save_checkpoint
from tests.families import extra
from tests.to_gguf.gguf_edits import edit

pytestmark = [pytest.mark.llama, pytest.mark.torch]
L = 64
PI = ScalingRequest(kind="linear", factor=4)
Change = Callable[[np.ndarray], np.ndarray]


def one_tap_on(taps: np.ndarray) -> np.ndarray:
    return np.roll(taps, 1, axis=-1)


def one_row_on(rows: np.ndarray) -> np.ndarray:
    return np.roll(rows, 1, axis=0)


# family -> a tensor, and what becomes of it
FAULTS: dict[str, tuple[str, Change]] = {
    "falcon_h1": ("blk.0.ssm_d", np.negative),
    "lfm2": ("blk.0.shortconv.conv.weight", one_tap_on),
    "qwen3_5_text": ("blk.0.ssm_a", np.negative),
    "qwen3_next": ("blk.0.ssm_ba.weight", one_row_on),
}


@pytest.mark.parametrize("family", FAULTS)
def test_a_fault_in_a_layer_that_is_not_attention_is_seen(family: str, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "model", family, context=L, **extra(family))
    sound = tmp_path / "sound.gguf"
    convert(source, "gguf", sound, scaling=PI, type="F32")
    name, change = FAULTS[family]
    bad = edit(sound, tmp_path / "bad.gguf", tensors={name: change})
    report = verify(bad, reference=source, tokens=2 * L)
    failed = {rung.name for rung in report.rungs if rung.status == "fail"}
    assert {"weights", "logits"} <= failed
