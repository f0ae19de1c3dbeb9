"""Checkpoints that have all experts of a layer in one tensor: refused by the names on disk, read an
expert at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.config.bundles import as_stored
from ropeconv.config.understand import understand
from ropeconv.errors import CheckpointError
from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import save_checkpoint

FIRST = "model.layers.1.block_sparse_moe.input_linear.weight"
Tensors = dict[str, Any]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(
        tmp_path_factory.mktemp("bundles") / "model", "granitemoeshared", context=64
    )


def changed(source: Path, out: Path, change: Callable[[Tensors], None]) -> Path:
    out.mkdir()
    for file in source.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    tensors = load_file(source / "model.safetensors")
    change(tensors)
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    return out


def without(tensors: Tensors) -> None:
    del tensors[FIRST]


def with_an_expert_less(tensors: Tensors) -> None:
    tensors[FIRST] = tensors[FIRST][1:].copy()


def with_a_prefix(tensors: Tensors) -> None:
    for name in list(tensors):
        tensors[f"module.{name}"] = tensors.pop(name)


@pytest.mark.parametrize(
    ("change", "text"),
    [(without, f"tensor {FIRST} is missing"), (with_an_expert_less, f"tensor {FIRST} has shape")],
)
def test_errors_name_what_is_on_disk(
    change: Callable[[Tensors], None], text: str, source: Path, tmp_path: Path
) -> None:
    broken = changed(source, tmp_path / "broken", change)
    with pytest.raises(CheckpointError, match=text) as refusal:
        understand(open_checkpoint(broken))
    assert "\n" not in str(refusal.value)


def test_names_under_a_prefix_are_found(source: Path, tmp_path: Path) -> None:
    model = understand(open_checkpoint(changed(source, tmp_path / "wrapped", with_a_prefix)))
    assert model.checkpoint.renamed == "without module."


def test_parts_are_views_of_the_stored_numbers(source: Path) -> None:
    """An expert's rows are read where they lie, and whole tensors come back as the very same."""
    checkpoint = open_checkpoint(source)
    model = understand(checkpoint)
    stored = load_file(source / "model.safetensors")[FIRST]
    half = stored.shape[1] // 2
    block = model.stack.layers[1].mlp
    assert isinstance(block, MixtureOfExperts)
    for first, weight in ((0, block.gate), (half, block.up)):
        rows = model.tensor(weight.template.format(n=1, x=2)).rows(3, 7)
        assert np.array_equal(rows, stored[2, first + 3 : first + 7])
        assert not rows.flags.owndata
    whole = as_stored(model.checkpoint.tensors, model.stack)
    assert whole.keys() == checkpoint.tensors.keys()
    assert all(whole[name] is checkpoint.tensors[name] for name in whole)
