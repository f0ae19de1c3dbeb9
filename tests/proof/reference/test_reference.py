"""The PyTorch side: its frequencies are those that it rotates by, and nothing of it is made up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.errors import CheckpointError
from ropeconv.proof.reference.layerwise import LayerwiseReference
from ropeconv.proof.reference.transformers_model import (
    build_model,
    has_tokenizer,
    transformers_config,
)
from ropeconv.proof.tokens.source_folder import SourceFolder
from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import save_checkpoint
from tests.proof.conftest import CONTEXT, SCALED, THETA, L

pytestmark = pytest.mark.torch


def build(folder: Path, family: str, rope: Mapping[str, Any]) -> LayerwiseReference:
    save_checkpoint(folder, family, context=L)
    checkpoint = open_checkpoint(folder)
    config = {"rope_parameters": rope, "max_position_embeddings": CONTEXT}
    return LayerwiseReference(
        checkpoint.tensors, {**checkpoint.config, **config}, source=checkpoint.path
    )


def nested(rope: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "full_attention": dict(rope),
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }


def test_longrope_shows_both_tables(tmp_path: Path) -> None:
    reference = build(tmp_path, "llama", {"rope_theta": THETA, **SCALED["longrope"]})
    found = reference.frequencies()["full_attention"]
    base = THETA ** (-np.arange(8) / 8)
    np.testing.assert_allclose(found.inv_freq, base / SCALED["longrope"]["short_factor"], rtol=1e-6)
    assert found.long_inv_freq is not None
    np.testing.assert_allclose(
        found.long_inv_freq, base / SCALED["longrope"]["long_factor"], rtol=1e-6
    )
    assert (found.switch_context, found.attention_factor) == (L, 1.25)


def test_each_layer_type_has_its_own_frequencies(tmp_path: Path) -> None:
    reference = build(tmp_path, "gemma3_text", nested({"rope_theta": THETA, **SCALED["linear"]}))
    found = reference.frequencies()
    np.testing.assert_allclose(
        found["full_attention"].inv_freq, THETA ** (-np.arange(8) / 8) / 4, rtol=1e-6
    )
    np.testing.assert_allclose(
        found["sliding_attention"].inv_freq, 1e4 ** (-np.arange(8) / 8), rtol=1e-6
    )


def test_a_weight_that_is_not_there_is_an_error_and_not_noise(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    save_checkpoint(tmp_path, "llama", context=L)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    checkpoint = open_checkpoint(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"no weight for model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        build_model(checkpoint, checkpoint.config)
    with pytest.raises(CheckpointError, match="transformers cannot build the reference"):
        build_model(
            checkpoint,
            dict(checkpoint.config) | {"rope_parameters": {"rope_type": "linaer", "factor": 2.0}},
        )


def test_a_checkpoint_without_tokenizer_has_none(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "llama", context=L)
    checkpoint = open_checkpoint(tmp_path)
    assert has_tokenizer(checkpoint)
    assert not has_tokenizer(replace(checkpoint, files={}))


def test_special_ids_come_from_tokenizer_and_config(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "llama", context=L)
    checkpoint = open_checkpoint(tmp_path)
    config = dict(checkpoint.config) | {"eos_token_id": [2, 1], "pad_token_id": 2}
    found = SourceFolder(checkpoint, transformers_config(config)).special_ids()
    assert {name: found[name] for name in ("bos", "eos", "padding")} == {
        "bos": {0},
        "eos": {0, 1, 2},
        "padding": {2},
    }
