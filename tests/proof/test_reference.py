"""The PyTorch side: its chunked logits are those of an ordinary forward pass, and its frequencies
those that it rotates by.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.errors import CheckpointError
from ropeconv.proof.reference.whole import Reference
from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import VOCAB, save_checkpoint
from tests.families import model_logits, random_ids
from tests.proof.conftest import CONTEXT, SCALED, THETA, L

pytestmark = pytest.mark.torch


def build(folder: Path, family: str, rope: Mapping[str, Any], **config: Any) -> Reference:
    save_checkpoint(folder, family, context=L, **config)
    checkpoint = open_checkpoint(folder)
    return Reference(
        checkpoint,
        dict(checkpoint.config) | {"rope_parameters": rope, "max_position_embeddings": CONTEXT},
    )


def nested(rope: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "full_attention": dict(rope),
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma3_text", "olmo2"])
def test_chunked_logits_are_the_models_own(family: str, tmp_path: Path) -> None:
    rope: dict[str, Any] = {"rope_theta": THETA, **SCALED["linear"]}
    extra = {"final_logit_softcapping": 5.0} if family == "gemma3_text" else {}
    reference = build(tmp_path, family, nested(rope) if family == "gemma3_text" else rope, **extra)
    ids = random_ids(700)
    blocks = list(reference.logits(ids))
    assert [block.shape for block in blocks] == [(512, VOCAB), (188, VOCAB)]
    own = model_logits(reference.model, ids)
    np.testing.assert_allclose(
        np.concatenate(blocks), own, rtol=0, atol=1e-4 * float(np.abs(own).max())
    )


def test_a_step_after_the_head_is_noticed(tmp_path: Path) -> None:
    reference = build(tmp_path, "llama", {"rope_theta": THETA, **SCALED["linear"]})
    forward = reference.model.forward

    def scaled(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.logits = out.logits * 1.001  # as Cohere's logit_scale would
        return out

    reference.model.forward = scaled
    with pytest.raises(CheckpointError, match="chunked head differs"):
        list(reference.logits(random_ids(20)))


def test_longrope_shows_both_tables_and_keeps_to_the_length_of_the_pass(tmp_path: Path) -> None:
    reference = build(tmp_path, "llama", {"rope_theta": THETA, **SCALED["longrope"]})
    found = reference.frequencies()["full_attention"]
    base = THETA ** (-np.arange(8) / 8)
    np.testing.assert_allclose(found.inv_freq, base / SCALED["longrope"]["short_factor"], rtol=1e-6)
    assert found.long_inv_freq is not None
    np.testing.assert_allclose(
        found.long_inv_freq, base / SCALED["longrope"]["long_factor"], rtol=1e-6
    )
    assert (found.switch_context, found.attention_factor) == (L, 1.25)
    short, long = (
        np.concatenate(list(reference.logits(random_ids(count))))[:L] for count in (L, L + 1)
    )
    assert float(np.abs(short - long).max()) > 0.01  # one token more changes every position's table


def test_each_layer_type_has_its_own_frequencies(tmp_path: Path) -> None:
    reference = build(tmp_path, "gemma3_text", nested({"rope_theta": THETA, **SCALED["linear"]}))
    found = reference.frequencies()
    np.testing.assert_allclose(
        found["full_attention"].inv_freq, THETA ** (-np.arange(8) / 8) / 4, rtol=1e-6
    )
    np.testing.assert_allclose(
        found["sliding_attention"].inv_freq, 1e4 ** (-np.arange(8) / 8), rtol=1e-6
    )


def test_progress_counts_tokens_by_layer(tmp_path: Path) -> None:
    reference = build(tmp_path, "llama", {"rope_theta": THETA, **SCALED["linear"]})
    seen: list[tuple[int, int]] = []
    list(reference.logits(random_ids(100), lambda done, total: seen.append((done, total))))
    assert seen == [(50, 100), (100, 100)]


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
        Reference(checkpoint, checkpoint.config)
    with pytest.raises(CheckpointError, match="transformers cannot build the reference"):
        Reference(
            checkpoint,
            dict(checkpoint.config) | {"rope_parameters": {"rope_type": "linaer", "factor": 2.0}},
        )


def test_a_checkpoint_without_tokenizer_has_none(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "llama", context=L)
    checkpoint = open_checkpoint(tmp_path)
    assert Reference(checkpoint, checkpoint.config).tokenizer is not None
    bare = replace(checkpoint, files={})
    assert Reference(bare, checkpoint.config).tokenizer is None


def test_special_ids_come_from_tokenizer_and_config(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "llama", context=L)
    config = json.loads((tmp_path / "config.json").read_text()) | {
        "eos_token_id": [2, 1],
        "pad_token_id": 2,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = open_checkpoint(tmp_path)
    assert Reference(checkpoint, checkpoint.config).special_ids() == {
        "bos": {0},
        "eos": {0, 1, 2},
        "padding": {2},
    }
