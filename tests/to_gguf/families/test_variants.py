"""Shapes and switches inside a family: each is exact in llama.cpp or refused with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf.run import logits
from ropeconv.errors import RopeconvError
from tests.checkpoints import save_checkpoint
from tests.families import GELU, extra, model_logits, nmse, random_ids
from tests.to_gguf import converting
from tests.to_gguf.converting import PI

L = 256
GROUPS = {"n_routed_experts": 8, "n_group": 4, "topk_group": 3}
EXACT: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, heads wider than the model": ("llama", {"head_dim": 32}),
    "llama, one key/value head": ("llama", {"num_key_value_heads": 1}),
    "mistral, heads wider than the model": ("mistral", {"head_dim": 32}),
    "mistral, a window as long as the context": ("mistral", {"sliding_window": 4 * L}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3, tied, heads wider than the model": (
        "qwen3",
        {"tie_word_embeddings": True, "head_dim": 32},
    ),
    "deepseek_v3, queries of the hidden state": ("deepseek_v3", {"q_lora_rank": None}),
    "deepseek_v3, one group": ("deepseek_v3", {"n_group": 1, "topk_group": 1}),
    "deepseek_v3, values as large as keys": ("deepseek_v3", {"v_head_dim": 40}),
    "youtu, untied": ("youtu", {"tie_word_embeddings": False, "rms_norm_eps": 1e-4}),
    "solar_open, groups": ("solar_open", GROUPS),
    "dots1, groups": ("dots1", GROUPS),
    "gemma3, softcap": ("gemma3_text", {"final_logit_softcapping": 5.0}),
    "gemma3, no sliding layer": ("gemma3_text", {"layer_types": ["full_attention"] * 6}),
    "gemma3, another pattern": (
        "gemma3_text",
        {"layer_types": ["sliding_attention", "full_attention"] * 3},
    ),
    "gemma4, values of their own": (
        "gemma4_text",
        {"attention_k_eq_v": False, "final_logit_softcapping": None},
    ),
    "gemma4, without inputs of layers": (
        "gemma4_text",
        {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0},
    ),
    "gemma4, heads of one size": ("gemma4_text", {"global_head_dim": 32}),
    "lfm2, a rounded width": (
        "lfm2",
        {"block_auto_adjust_ff_dim": True, "block_multiple_of": 32},
    ),
    "lfm2, four taps": ("lfm2", {"conv_L_cache": 4}),
    "phi3, all heads": ("phi3", {"num_key_value_heads": 4}),
    "gpt_neox, sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "olmo2, tied": ("olmo2", {"tie_word_embeddings": True}),
    "olmo2, shared key/value heads": ("olmo2", {"num_key_value_heads": 2}),
}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "mistral, window": (
        "mistral",
        {"sliding_window": 64},
        "a window of 64 tokens|sliding window of 64 tokens",
    ),
    "phi3, window": (
        "phi3",
        {"sliding_window": 64},
        "a window of 64 tokens|sliding window of 64 tokens",
    ),
    "qwen2, window": (
        "qwen2",
        {
            "use_sliding_window": True,
            "sliding_window": 64,
            "layer_types": ["full_attention", "sliding_attention"],
        },
        "ignores the sliding window of 64 tokens",
    ),
    "qwen3, biases": ("qwen3", {"attention_bias": True}, "qwen3 has no place for a bias on o"),
    "gpt_neox, no biases": (
        "gpt_neox",
        {"attention_bias": False},
        "does not load without a bias on o, qkv",
    ),
    "gemma3, query scale": (
        "gemma3_text",
        {"query_pre_attn_scalar": 24},
        "query_pre_attn_scalar 24",
    ),
    "gemma4, biases": ("gemma4_text", {"attention_bias": True}, "no place for a bias on k, o, q"),
    "gemma4, another layer's keys": (
        "gemma4_text",
        {"layer_types": ["full_attention", "sliding_attention"] + ["full_attention"] * 2},
        "in this model they are layer",
    ),
    "gemma4, more rows of inputs": (
        "gemma4_text",
        {"vocab_size_per_layer_input": 400},
        "vocab_size_per_layer_input 400",
    ),
    "gemma4, no sliding layer": (
        "gemma4_text",
        {"layer_types": ["full_attention"] * 4},
        "does not load without layers of both kinds",
    ),
    "lfm2, biases": ("lfm2", {"conv_bias": True}, "no place for a bias on conv, conv_in"),
    "lfm2, attention alone": (
        "lfm2",
        {"layer_types": ["full_attention"] * 3},
        "every layer of this model is attention",
    ),
    "lfm2_moe, a scale": (
        "lfm2_moe",
        {"routed_scaling_factor": 2.0},
        "lfm2moe has no place for routed_scaling_factor",
    ),
    "lfm2_moe, no bias": (
        "lfm2_moe",
        {"use_expert_bias": False},
        "does not load without a bias on router_bias",
    ),
    "lfm2, no attention": ("lfm2", {"layer_types": ["conv"] * 3}, "every layer is conv"),
    "lfm2, one tap": ("lfm2", {"conv_L_cache": 1}, "conv_L_cache must be 2 or more"),
    "deepseek_v2, groups by their best": (
        "deepseek_v2",
        GROUPS | {"topk_method": "group_limited_greedy"},
        "no place for groups of experts, chosen by their best one",
    ),
    "deepseek_v3, halves": ("deepseek_v3", {"rope_interleave": False}, "rope_interleave"),
    "deepseek_v3, biases": (
        "deepseek_v3",
        {"attention_bias": True},
        "no place for a bias on kv_a, o, q_a",
    ),
    "deepseek_v3, as many layers as a lite one": (
        "deepseek_v3",
        {"num_hidden_layers": 26, "first_k_dense_replace": 26},
        "takes a model of 26 layers for one without q_lora_rank",
    ),
    "glm4_moe_lite, dense behind experts": (
        "glm4_moe_lite",
        {"num_hidden_layers": 3, "mlp_layer_types": ["dense", "sparse", "dense"]},
        "keeps a dense MLP in layer 2 behind experts",
    ),
    "mixtral, more experts than there are": (
        "mixtral",
        {"num_experts_per_tok": 5},
        "a token goes to 5 experts, and there are 4",
    ),
    "deepseek_v3, one group of which two": (
        "deepseek_v3",
        {"n_group": 1},
        "cannot be chosen in topk_group 2 of n_group 1",
    ),
    "deepseek_v3, no such groups": (
        "deepseek_v3",
        {"topk_group": 1, "num_experts_per_tok": 3},
        "cannot be chosen in topk_group 1 of n_group 4",
    ),
    "minicpm3, another multiplier": ("minicpm3", {"scale_emb": 10}, "scale_emb 12 in its graph"),
    "minicpm3, queries of the hidden state": ("minicpm3", {"q_lora_rank": None}, "q_lora_rank"),
    "llama, another activation": ("llama", {"hidden_act": "relu"}, "hidden_act = 'relu'"),
}


def rope(kind: str) -> dict[str, Any]:
    """The scaling in transformers' keys."""
    return {"rope_type": kind, "rope_theta": 20000.0} | (
        {"factor": 4.0} if kind == "linear" else {}
    )


def reference(source: Path) -> Any:
    """transformers with Position Interpolation in the config."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(source)
    family, own = config.model_type, rope("linear")
    if family == "phi3":
        own = {
            "rope_type": "longrope",
            "rope_theta": 20000.0,
            "short_factor": [4.0] * 8,
            "long_factor": [4.0] * 8,
        }
        own |= {"factor": 4.0, "attention_factor": 1.0, "original_max_position_embeddings": L}
    if family == "gpt_neox":
        own |= {"partial_rotary_factor": 0.25}
    if family in ("gemma3_text", "gemma4_text"):
        own = {
            "full_attention": own,
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        }
    config.rope_parameters, config.max_position_embeddings = own, 4 * L
    return AutoModelForCausalLM.from_pretrained(source, config=config, dtype="float32").eval()


def convert(source: Path, out: Path) -> Path:
    return converting.convert(source, out, PI, type="F32").files[0]


def build(family: str, folder: Path, config: dict[str, Any]) -> Path:
    return save_checkpoint(folder, family, context=L, **extra(family) | config)


@pytest.mark.llama
@pytest.mark.parametrize("case", EXACT)
def test_a_variant_is_exact(case: str, tmp_path: Path) -> None:
    family, config = EXACT[case]
    source = build(family, tmp_path / "model", config)
    out = convert(source, tmp_path / "out.gguf")
    ids = random_ids(3 * L)
    wanted = model_logits(reference(source), ids)
    got = np.concatenate(list(logits(out, ids, 4 * L)))
    assert nmse(got, wanted) <= (1e-5 if family in GELU else 1e-6)


@pytest.mark.parametrize("case", REFUSED)
def test_a_variant_that_llama_cpp_cannot_compute_is_refused(case: str, tmp_path: Path) -> None:
    family, config, text = REFUSED[case]
    source = build(family, tmp_path / "model", config)
    with pytest.raises(RopeconvError, match=text):
        convert(source, tmp_path / "out.gguf")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
