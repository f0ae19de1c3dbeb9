"""Keys of published config.json files that repeat what a class always does, or that only trainers
and servers read: transformers computes the same with them and without, and they refuse no model.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.errors import CheckpointError, ConfigError
from ropeconv.inspection.look import look
from ropeconv.prepare import prepare
from tests.checkpoints import save_checkpoint
from tests.families import random_ids
from tests.methods import L
from tests.sources.wrapper_models import edit_config, text_logits

pytestmark = pytest.mark.torch
IDS = random_ids(64)
# what transformers of some version saves beside every config
SAVED = {
    "_checkpoint_class": "LlamaForCausalLM",
    "_name_or_path": "base",
    "cache_implementation": "hybrid",
    "ignore_keys_at_rope_validation": ["mrope_section"],
    "output_attentions": False,
    "transformers_version": "5.1.0",
    "use_cache": False,
}
CHUNKS = {"chunk_size": 262144, "local_size": 8192, "original_max_position_embeddings": 262144}
PUBLISHED: dict[str, dict[str, Any]] = {
    "llama": {"internal_version": "v1", "max_sequence_length": 2048, "rope_interleaved": False},
    "qwen2": {"use_mrope": False, "dual_chunk_attention_config": CHUNKS},
    "qwen3": {"max_window_layers": 36, "use_sliding_window": False, "sliding_window": None},
    "qwen3_moe": {
        "qkv_bias": False,
        "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": 0,
        "use_qk_norm": True,
    },
    "seed_oss": {"residual_dropout": 0.1, "pretraining_tp": 1},
    "gemma2": {"sliding_window_size": 64, "hidden_act": "gelu_pytorch_tanh"},
    "gemma3_text": {"sliding_window_pattern": 6, "final_logit_softcapping": None},
    "granitemoehybrid": {"init_method": "mup", "normalization_function": "rmsnorm"},
    "smollm3": {"max_window_layers": 28, "mlp_bias": False, "pretraining_tp": 2},
    "cohere": {"model_max_length": 131072, "use_qk_norm": False},
    "hunyuan_v1_dense": {
        "add_classification_head": False,
        "attention_head_dim": 16,
        "cla_share_factor": 2,
        "class_num": 0,
        "dense_list": [64, 0],
        "im_start_id": 4,
        "norm_type": "rms",
        "org_vocab_size": 384,
        "pool_type": "last",
        "position_embedding_xdrope": False,
        "use_cla": False,
        "use_qk_norm": True,
        "use_rotary_pos_emb": True,
    },
    "qwen3_next": {
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "output_router_logits": False,
        "router_aux_loss_coef": 0.001,
        "use_sliding_window": False,
    },
    "falcon_h1": {
        "attn_layer_indices": None,
        "mamba_chunk_size": 128,
        "mamba_use_mlp": True,
        "mlp_expansion_factor": 8,
        "num_logits_to_keep": 1,
        "time_step_floor": 0.0001,
        "time_step_max": 0.1,
        "time_step_min": 0.001,
        "time_step_rank": "auto",
    },
    "hyperclovax": {"end_token_id": 3, "is_training": True, "resid_pdrop": 0.0},
}


def with_keys(source: Path, out: Path, **keys: Any) -> Path:
    """A copy with further keys; nulls stay."""
    shutil.copytree(source, out)
    edit_config(out, lambda config: config | keys)
    return out


@pytest.mark.parametrize("family", PUBLISHED)
def test_a_key_without_bearing_refuses_no_model(family: str, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "plain", family, context=L)
    told = with_keys(source, tmp_path / "told", **SAVED, **PUBLISHED[family])
    assert np.array_equal(text_logits(told, IDS), text_logits(source, IDS))
    found, plain = prepare(told, None), prepare(source, None)
    assert (found.stack, found.ropes) == (plain.stack, plain.ropes)


SAYING: dict[str, tuple[str, dict[str, Any], str]] = {
    "heads without norms": ("hunyuan_v1_dense", {"use_qk_norm": False}, "use_qk_norm = False"),
    "layers that share keys": ("hunyuan_v1_dense", {"use_cla": True}, "config.json has use_cla"),
    "a shared expert": (
        "qwen3_moe",
        {"shared_expert_intermediate_size": 64},
        "shared_expert_intermediate_size = 64",
    ),
    "steps within limits": ("falcon_h1", {"time_step_limit": [0.0, 0.1]}, "time_step_limit = "),
    "a multiplier beyond all floats": ("falcon_h1", {"key_multiplier": 1e300}, "float32 can hold"),
    "four multipliers": ("falcon_h1", {"ssm_multipliers": [1.0] * 4}, "must be 5 numbers"),
    "a window by another name": (
        "mistral",
        {"sliding_window_size": 64},
        "config.json has sliding_window_size",
    ),
}


@pytest.mark.parametrize("case", SAYING)
def test_a_key_that_says_something_is_refused(case: str, tmp_path: Path) -> None:
    family, keys, reason = SAYING[case]
    source = save_checkpoint(tmp_path / "plain", family, context=L)
    with pytest.raises(ConfigError, match=reason):
        prepare(with_keys(source, tmp_path / "told", **keys), None)


def test_d28_attention_by_chunks_is_said(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "plain", "qwen2", context=L)
    told = with_keys(source, tmp_path / "told", dual_chunk_attention_config=CHUNKS)
    found = {finding.name: finding for finding in look(told).findings}
    assert "vLLM" in found["D28"].effects
    assert found["D28"].severity == "note"
    assert "D28" not in {finding.name for finding in look(source).findings}


def test_quantised_numbers_in_place_of_weights_are_called_so(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = save_checkpoint(tmp_path / "plain", "qwen2", context=L)
    name = "model.layers.0.self_attn.q_proj"
    tensors = load_file(source / "model.safetensors")
    del tensors[f"{name}.weight"]
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"q_proj\.weight is missing \(1 of"):
        prepare(source, None)  # its bias is no quantised weight
    tensors[f"{name}.qweight"] = np.zeros((8, 64), np.int32)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"q_proj\.qweight is there: quantised weights"):
        prepare(source, None)
