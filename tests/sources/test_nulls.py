"""Nulls in config.json: refused by the key's name, or read as transformers reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ropeconv.errors import RopeconvError
from ropeconv.prepare import prepare
from tests.checkpoints import save_checkpoint, with_null

REFUSED = {
    "hidden_size": "hidden_size must be a positive integer, not None",
    "num_hidden_layers": "num_hidden_layers must be a positive integer, not None",
    "num_attention_heads": "num_attention_heads must be a positive integer, not None",
    "intermediate_size": "intermediate_size must be a positive integer, not None",
    "vocab_size": "vocab_size must be a positive integer, not None",
    "rms_norm_eps": "rms_norm_eps must be a small positive number, not None",
    "tie_word_embeddings": "tie_word_embeddings must be true or false, not None",
    "hidden_act": "hidden_act = None; for llama ropeconv covers",
    "attention_bias": "attention_bias = None; for llama ropeconv covers",
    "mlp_bias": "mlp_bias = None; for llama ropeconv covers",
    "max_position_embeddings": "no max_position_embeddings; add it",
    "original_max_position_embeddings": "original_max_position_embeddings is None",
    "model_type": "no model_type",
    "rope_theta": "T2: rope_theta has a rope_theta of null",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(
        tmp_path_factory.mktemp("source") / "model", "llama", context=256, num_key_value_heads=4
    )


@pytest.mark.parametrize("key", REFUSED)
def test_a_null_is_refused(key: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(RopeconvError) as caught:
        prepare(with_null(model, tmp_path / "null", key), None)
    assert REFUSED[key] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    ["num_key_value_heads", "head_dim", "rope_parameters", "rope_scaling", "partial_rotary_factor"],
)
def test_a_null_means_what_transformers_takes_it_for(key: str, model: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    source = with_null(model, tmp_path / "null", key)
    found, config = prepare(source, None), AutoConfig.from_pretrained(source)
    attention = found.stack.attention
    assert attention.num_kv_heads == config.num_key_value_heads
    assert attention.head_dim == config.head_dim
    frequencies = found.frequencies["full_attention"]
    assert frequencies is not None
    assert np.allclose(
        frequencies.inv_freq, LlamaRotaryEmbedding(config).inv_freq.tolist(), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(
    "key", ["architectures", "bos_token_id", "pad_token_id", "dtype", "use_cache", "no_rope_layers"]
)
def test_a_null_without_bearing_changes_nothing(key: str, model: Path, tmp_path: Path) -> None:
    found, wanted = prepare(with_null(model, tmp_path / "null", key), None), prepare(model, None)
    assert (found.stack, found.ropes) == (wanted.stack, wanted.ropes)
