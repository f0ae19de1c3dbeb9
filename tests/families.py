"""The families as the tests use them: tiny random transformers models, and the references of the
grids.

A family is one entry of TINY. Nothing here calls ropeconv, so that a mistake in a converter cannot
hide behind the same mistake in its test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.methods import FACTOR, LONG, THETA, L, spelled

VOCAB = 96
LLAMA = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SHARED = {
    "vocab_size": VOCAB,
    "num_hidden_layers": 2,
    "initializer_range": 0.15,
    "pad_token_id": None,
}
# of sliding layers with a rope of their own
LOCAL = {"rope_type": "default", "rope_theta": 10000.0}


@dataclass(frozen=True)
class Tiny:
    """A family's tiny model.

    config: of its transformers class. grid: what the grids add, so that every target can have it.
    gelu: runtimes compute its activation in forms of their own (ggml from a float16 table). nested:
    rope_parameters are one dict a layer type; local: that of sliding layers. partial: the share of
    a head that rotates. kept: what its rope_parameters have beside a rope's. own_types: its class
    takes `default` and `longrope` alone, so other methods are spelled as divisors. centred: its
    norms multiply by 1 + weight, and transformers starts them at 1 as if they did not.
    """

    config: dict[str, Any]
    grid: dict[str, Any] = field(default_factory=dict)
    gelu: bool = False
    nested: bool = False
    local: dict[str, Any] = field(default_factory=lambda: dict(LOCAL))
    partial: float = 1.0
    kept: dict[str, Any] = field(default_factory=dict)
    own_types: bool = False
    centred: bool = False


UNTIED = {"tie_word_embeddings": False}
HEADS = {"head_dim": 16}
# queries grow with every L tokens
TEMPERATURE = {"llama_4_scaling_beta": 0.3, "original_max_position_embeddings": L}
MULTIPLIERS = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.2,
    "logits_scaling": 2.0,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED = {  # experts as DeepSeek-V3 has them, in all layers but the first
    "n_routed_experts": 4,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.5,
}
TINY: dict[str, Tiny] = {
    "llama": Tiny(LLAMA | UNTIED),
    "mistral": Tiny(LLAMA | {"sliding_window": None}),
    "qwen2": Tiny(LLAMA),
    "qwen3": Tiny(LLAMA | {"head_dim": 16}),
    "seed_oss": Tiny(LLAMA | {"head_dim": 16}),
    "qwen3_moe": Tiny(
        LLAMA
        | {
            "head_dim": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
        }
    ),
    "olmo2": Tiny(LLAMA | {"num_key_value_heads": 4}, grid=UNTIED),
    "phi3": Tiny(
        LLAMA | {"original_max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2},
        own_types=True,
    ),
    "gpt_neox": Tiny(
        {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 2},
        grid=UNTIED | {"hidden_size": 128},  # a quarter of its head rotates
        gelu=True,
        partial=0.25,
    ),
    "gemma3_text": Tiny(
        LLAMA
        | {
            "head_dim": 16,
            "num_hidden_layers": 6,
            "sliding_window": 64,
            "query_pre_attn_scalar": 16,
        },
        gelu=True,
        nested=True,
    ),
    "internlm3": Tiny(LLAMA | HEADS),
    "iquestcoder": Tiny(LLAMA | HEADS),
    "helium": Tiny(LLAMA | HEADS),
    "ernie4_5": Tiny(LLAMA | HEADS | UNTIED),
    "exaone4": Tiny(
        LLAMA | HEADS | {"sliding_window": None, "layer_types": ["full_attention"] * 2}
    ),
    "olmo3": Tiny(
        LLAMA | {"num_key_value_heads": 4, "num_hidden_layers": 4, "sliding_window": 64},
        grid=UNTIED,
        nested=True,
        local=LOCAL | {"rope_theta": THETA},  # its published ones have one theta
    ),
    "gemma": Tiny(LLAMA | HEADS, gelu=True),
    "gemma2": Tiny(LLAMA | HEADS | {"sliding_window": 64, "query_pre_attn_scalar": 16}, gelu=True),
    "cwm": Tiny(LLAMA | HEADS | {"num_hidden_layers": 4, "sliding_window": 64}),
    "ministral": Tiny(
        LLAMA
        | HEADS
        | {"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]}
    ),
    "smollm3": Tiny(LLAMA | {"num_hidden_layers": 4}),
    "hunyuan_v1_dense": Tiny(LLAMA | HEADS),
    "ministral3": Tiny(LLAMA | HEADS, kept=TEMPERATURE),
    "glm": Tiny(LLAMA | {"hidden_size": 128, "head_dim": 32}, partial=0.5),
    "glm4": Tiny(LLAMA | {"head_dim": 32}, partial=0.5),
    "cohere": Tiny(LLAMA),
    "granite": Tiny(LLAMA | MULTIPLIERS),
    "granitemoehybrid": Tiny(
        LLAMA
        | MULTIPLIERS
        | {
            "shared_intermediate_size": 96,
            "num_local_experts": 0,
            "position_embedding_type": "rope",
            "layer_types": ["full_attention"] * 2,
            "mamba_n_heads": 2,
        }
    ),
    "granite_swa": Tiny(LLAMA | MULTIPLIERS | {"num_hidden_layers": 4, "sliding_window": 64}),
    "hyperclovax": Tiny(LLAMA | MULTIPLIERS | HEADS | {"use_post_norm": False}),
    "nemotron": Tiny(LLAMA, grid={"hidden_size": 128}, partial=0.5, centred=True),
    "arcee": Tiny(LLAMA),
    "jais2": Tiny(LLAMA | HEADS),
    "apertus": Tiny(LLAMA),
    "phi": Tiny(LLAMA, grid={"hidden_size": 128}, gelu=True, partial=0.5),
    "starcoder2": Tiny(LLAMA | UNTIED, gelu=True),
    "falcon": Tiny(
        {"hidden_size": 64, "num_attention_heads": 4, "num_kv_heads": 2, "bias": False}
        | {"new_decoder_architecture": True, "ffn_hidden_size": 256}
        | UNTIED,
        gelu=True,
    ),
    "stablelm": Tiny(LLAMA, grid={"hidden_size": 256, "initializer_range": 0.075}, partial=0.25),
    "olmo": Tiny(LLAMA),
    "persimmon": Tiny(
        {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4},
        grid={"hidden_size": 128},
        partial=0.5,
    ),
}
TINY |= {
    "mixtral": Tiny(LLAMA | LOCAL_EXPERTS),
    "olmoe": Tiny(LLAMA | EXPERTS | {"num_key_value_heads": 4}),
    "qwen2_moe": Tiny(
        LLAMA | EXPERTS | {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 64}
    ),
    "mellum": Tiny(
        LLAMA
        | HEADS
        | {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "num_hidden_layers": 4,
            "sliding_window": 64,
            "layer_types": ["full_attention", *["sliding_attention"] * 3],
        },
        nested=True,
        local=LOCAL | {"rope_theta": THETA},
    ),
    "ernie4_5_moe": Tiny(
        LLAMA
        | {
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_intermediate_size": 32,
            "moe_num_shared_experts": 2,
        }
    ),
    "hunyuan_v1_moe": Tiny(LLAMA | HEADS | {"num_experts": 4, "moe_topk": 2}),
    "dots1": Tiny(LLAMA | HEADS | ROUTED | {"num_key_value_heads": 4, "sliding_window": None}),
    "glm4_moe": Tiny(LLAMA | {"head_dim": 32, "use_qk_norm": True} | ROUTED, partial=0.5),
    "solar_open": Tiny(LLAMA | HEADS | ROUTED | {"first_k_dense_replace": 0}),
    "minimax_m2": Tiny(
        LLAMA
        | {"head_dim": 32, "rotary_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
        partial=0.5,
    ),
    "granitemoe": Tiny(LLAMA | MULTIPLIERS | LOCAL_EXPERTS),
    "granitemoeshared": Tiny(
        LLAMA | MULTIPLIERS | LOCAL_EXPERTS | {"shared_intermediate_size": 64}
    ),
    "granitemoe_swa": Tiny(
        LLAMA
        | MULTIPLIERS
        | LOCAL_EXPERTS
        | {"num_hidden_layers": 4, "sliding_window": 64, "shared_intermediate_size": 64}
    ),
    "gpt_oss": Tiny(LLAMA | HEADS | LOCAL_EXPERTS | {"num_hidden_layers": 4, "sliding_window": 64}),
    "hy_v3": Tiny(LLAMA | HEADS | EXPERTS | {"moe_intermediate_size": 32}),
}
TINY |= {
    "lfm2": Tiny(
        LLAMA
        | {
            "block_auto_adjust_ff_dim": False,
            "layer_types": ["conv", "full_attention", "conv"],
            "num_hidden_layers": 3,
        }
    ),
    "lfm2_moe": Tiny(
        LLAMA
        | EXPERTS
        | {
            "moe_intermediate_size": 32,
            "num_dense_layers": 1,
            "layer_types": ["conv", "full_attention", "conv"],
            "num_hidden_layers": 3,
        }
    ),
}
DELTA = {
    "head_dim": 64,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "num_hidden_layers": 3,
}
TINY |= {
    "qwen3_5_text": Tiny(LLAMA | DELTA, partial=0.25),
    "qwen3_5_moe_text": Tiny(
        {name: size for name, size in LLAMA.items() if name != "intermediate_size"}
        | DELTA
        | EXPERTS
        | {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 64},
        partial=0.25,
    ),
    "qwen3_next": Tiny(
        LLAMA
        | DELTA
        | EXPERTS
        | {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 64},
        partial=0.25,
    ),
}
TINY |= {
    "falcon_h1": Tiny(
        LLAMA
        | HEADS
        | {
            "mamba_d_ssm": 64,
            "mamba_n_heads": 4,
            "mamba_n_groups": 2,
            "mamba_d_state": 16,
            "mamba_rms_norm": True,
            "mamba_norm_before_gate": False,
            "embedding_multiplier": 0.7,
            "lm_head_multiplier": 1.5,
            "attention_in_multiplier": 1.2,
            "attention_out_multiplier": 0.9,
            "key_multiplier": 0.8,
            "ssm_in_multiplier": 1.1,
            "ssm_out_multiplier": 0.6,
            "ssm_multipliers": [0.5, 1.3, 0.9, 1.4, 0.8],
            "mlp_multipliers": [0.9, 1.6],
        }
    ),
}
LATENT = {  # attention with 16 values of a head that rotate
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "kv_lora_rank": 32,
    "q_lora_rank": 48,
    "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
}
GROUPED = {"n_routed_experts": 8, "n_group": 4, "topk_group": 2}
TINY |= {
    "deepseek_v2": Tiny(LATENT | ROUTED | {"q_lora_rank": None, "norm_topk_prob": False}),
    "deepseek_v3": Tiny(LATENT | ROUTED | GROUPED),
    "glm4_moe_lite": Tiny(
        {key: value for key, value in (LATENT | ROUTED).items() if key != "first_k_dense_replace"}
        | {"v_head_dim": 40}
    ),
    "minicpm3": Tiny(LATENT),
    "youtu": Tiny(LATENT),
}
TINY |= {
    "gemma4_text": Tiny(
        LLAMA
        | {
            "num_hidden_layers": 4,
            "sliding_window": 64,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "head_dim": 32,
            "global_head_dim": 16,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": 384,
            "num_kv_shared_layers": 2,
            "use_double_wide_mlp": True,
            "final_logit_softcapping": 30.0,
        },
        gelu=True,
        nested=True,
    ),
}
FAMILIES = sorted(TINY)
CONFIGS = {name: tiny.config for name, tiny in TINY.items()}
GELU = {name for name, tiny in TINY.items() if tiny.gelu}


def make_model(
    family: str, rope: Mapping[str, Any], *, context: int, seed: int = 0, **config: Any
) -> Any:
    """A random float32 model.

    rope: rope_parameters of its full-attention layers; context: max_position_embeddings.
    """
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    parameters: Any = TINY[family].kept | dict(rope)
    if TINY[family].nested:
        parameters = {"full_attention": dict(rope), "sliding_attention": TINY[family].local}
    lengths = {"max_position_embeddings": context, "rope_parameters": parameters}
    values = SHARED | TINY[family].config | lengths | config
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**values), dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # transformers starts norms and biases at 1 and 0, which hide a lost one
            if weight.ndim == 1 or "norm" in name:
                weight.add_(0.1 * torch.randn_like(weight))
                if TINY[family].centred and name.endswith("norm.weight"):
                    weight.sub_(1.0)
                if name.endswith("A_log"):  # else a state is forgotten within a token
                    weight.sub_(4.0)
            elif "embed" in name:
                weight.mul_(4)
        for name, bias in (*model.named_buffers(), *model.named_parameters()):
            # which start at 0, or at 1
            if name.endswith(("correction_bias", "expert_bias", "layer_scalar")):
                bias.add_(0.3 * torch.randn_like(bias))
            elif name.endswith("_proj_bias"):  # of experts, whose gates are to reach their clamp
                bias.add_(3.0 * torch.randn_like(bias))
    return model.eval()


def random_ids(count: int, *, seed: int = 1) -> list[int]:
    """Token ids without a pattern."""
    return [int(i) for i in np.random.default_rng(seed).integers(3, VOCAB, count)]


def model_logits(model: Any, ids: list[int]) -> np.ndarray:
    """(n, vocab) of one forward pass."""
    import torch

    with torch.no_grad():
        return np.asarray(model(torch.tensor([ids]), use_cache=False).logits[0])


def extra(family: str) -> dict[str, Any]:
    """What the grids add to a family's tiny model."""
    return TINY[family].grid


def reference(source: Path, family: str, method: str) -> Any:
    """The checkpoint in transformers with the method in its config."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tiny = TINY[family]
    config = AutoConfig.from_pretrained(source)
    rope = as_divisors(method) if tiny.own_types else spelled(method)
    rope = tiny.kept | rope
    if tiny.partial != 1.0:
        share = config.rope_parameters["partial_rotary_factor"]  # as saved
        rope |= {"partial_rotary_factor": share}
    if tiny.nested:
        truncate = {"truncate": False} if rope.pop("truncate", True) is False else {}
        rope = {"full_attention": rope, "sliding_attention": tiny.local} | truncate
    config.rope_parameters = rope
    state_head_dim(config)
    if hasattr(config, "layer_rope_theta"):  # which the class made of the theta before
        config.layer_rope_theta = [rope["rope_theta"]] * config.num_hidden_layers
    config.max_position_embeddings = L if method == "none" else FACTOR * L
    return AutoModelForCausalLM.from_pretrained(source, config=config, dtype="float32").eval()


def state_head_dim(config: Any) -> None:
    """Some classes leave it null, and their rope functions break on that."""
    if vars(config).get("head_dim", 0) is None:
        config.head_dim = config.hidden_size // config.num_attention_heads


def as_divisors(method: str) -> dict[str, Any]:
    """The method as LongRoPE, with the divisors of transformers' Llama under the method."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rope = spelled(method)
    if rope["rope_type"] in ("default", "longrope"):
        return rope
    shape = {"hidden_size": 64, "num_attention_heads": 4}
    rotary = LlamaRotaryEmbedding(
        LlamaConfig(**shape, max_position_embeddings=FACTOR * L, rope_parameters=rope)
    )
    default = {"rope_type": "default", "rope_theta": THETA}
    plain = LlamaRotaryEmbedding(LlamaConfig(**shape, rope_parameters=default))
    rho = (plain.inv_freq.double() / rotary.inv_freq.double()).tolist()
    factors = {"short_factor": rho, "long_factor": rho}
    magnitude = {"attention_factor": float(rotary.attention_scaling)}
    return LONG | {"rope_theta": THETA} | factors | magnitude


def nmse(got: np.ndarray, wanted: np.ndarray) -> float:
    """Mean squared error over the reference's variance."""
    return float(((got - wanted) ** 2).mean() / wanted.var())
