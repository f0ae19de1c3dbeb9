"""Checkpoints whose names are off by a prefix: of torch.compile, of distributed training, of peft,
of the base model saved alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ropeconv.config.understand import understand
from ropeconv.errors import CheckpointError
from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import save_checkpoint

pytestmark = pytest.mark.torch
AROUND = ["_orig_mod.", "module.", "base_model.model.", "module._orig_mod."]


def saved(folder: Path, *, around: str = "", base_alone: bool = False, tied: bool = True) -> Path:
    from safetensors.torch import load_file, save_file

    save_checkpoint(folder, "llama", context=256, tie_word_embeddings=tied)
    file = folder / "model.safetensors"
    tensors = {around + name: tensor for name, tensor in load_file(file).items()}
    if base_alone:
        tensors.pop("lm_head.weight", None)
        tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("around", AROUND)
def test_a_prefix_around_every_name_is_read_and_said(tmp_path: Path, around: str) -> None:
    model = understand(open_checkpoint(saved(tmp_path / "wrapped", around=around)))
    plain = understand(open_checkpoint(saved(tmp_path / "plain")))
    assert model.weights.keys() == plain.weights.keys()
    assert all(part in model.checkpoint.renamed for part in around.split(".")[:1])
    for name in plain.weights:
        assert np.array_equal(model.tensor(name).rows(0, 2), plain.tensor(name).rows(0, 2))


def test_a_tied_base_model_is_read_as_transformers_does(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = saved(tmp_path / "base", base_alone=True)
    model = understand(open_checkpoint(folder))
    reference = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert "saved without a head" in model.checkpoint.renamed
    for name in model.weights:
        rows = model.tensor(name).rows(0, 2)
        assert np.array_equal(rows, reference[name][:2].float().numpy())


def test_an_untied_base_model_lacks_its_head(tmp_path: Path) -> None:
    folder = saved(tmp_path / "base", base_alone=True, tied=False)
    with pytest.raises(CheckpointError, match="saved alone"):
        understand(open_checkpoint(folder))


def test_names_that_are_off_in_part_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path / "part")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["module.model.norm.weight"] = tensors.pop("model.norm.weight")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight is missing"):
        understand(open_checkpoint(folder))
