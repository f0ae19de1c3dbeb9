"""Every family's matrices: each product is seen, has a name in the file, and is found by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.to_gguf.matrix.importance import GgufImportance
from ropeconv.config.patch import huggingface_patch
from ropeconv.config.rope_parameters import replace_rope_parameters
from ropeconv.importance.sums import Importance
from ropeconv.prepare import prepare
from ropeconv.proof.importance.gather import Gatherer
from ropeconv.proof.reference.arithmetic import Arithmetic
from tests.checkpoints import save_checkpoint
from tests.families import FAMILIES, TINY, random_ids

# multiplied in llama.cpp by what no matrix of the checkpoint is, or weighed by no quantiser
UNNAMED = ("kv_b_proj", "router", "gate.weight", "gate.wg")


@pytest.mark.torch
@pytest.mark.halved
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "persimmon"])
def test_a_familys_sums_go_into_a_file_and_come_back(family: str, tmp_path: Path) -> None:
    """persimmon: llama.cpp does not run it."""
    source = save_checkpoint(tmp_path / "model", family, context=256, **TINY[family].grid)
    model, out = prepare(source, None), tmp_path / "m.gguf"
    config = replace_rope_parameters(model.checkpoint.config, huggingface_patch(model))
    made = Gatherer(model, config, Arithmetic()).gather([random_ids(48)], head=True)
    files = GgufImportance()
    files.check(model, out)
    files.write(Importance(made), model, out)
    back = files.read([out], model).sums
    missing = [n for n in made if n not in back and not any(word in n for word in UNNAMED)]
    assert missing == []
    for name, sums in back.items():
        assert np.array_equal(sums.squares, made[name].squares.astype(np.float32))
        assert np.array_equal(sums.counts, made[name].counts)
