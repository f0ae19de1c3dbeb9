"""What config classes take where a config.json is silent, the keys that published ones have beside
those that are read, and forms that no class runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ropeconv.arch.layers import FULL
from ropeconv.arch.stack import Stack
from ropeconv.config.rope_parameters import read_ropes
from ropeconv.config.sizes import check_keys, find_architecture, read_sizes
from ropeconv.errors import ConfigError, RopeConfigError
from ropeconv.rope.solve import solve
from ropeconv.rope.spec import Rope

pytestmark = pytest.mark.torch
HEAD = 16
SIZES: dict[str, Any] = {
    "hidden_size": 4 * HEAD,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 96,
    "intermediate_size": 96,
    "head_dim": HEAD,
}


def read(config: dict[str, Any]) -> Rope:
    spelling = find_architecture(config).rope
    rope = read_ropes(config, rotary_sizes={FULL: HEAD}, spelling=spelling)[FULL]
    assert rope is not None
    return rope


def build(config: dict[str, Any]) -> Stack:
    """The stack of a config as the commands read it."""
    arch = find_architecture(config)
    check_keys(config, arch)
    sizes = read_sizes(config, arch)
    return arch.stack(sizes, (FULL,) * sizes.num_layers)


def transformers_model(config: dict[str, Any]) -> Any:
    """The model that transformers makes of the config."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    loaded = CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    return AutoModelForCausalLM.from_config(loaded)


@pytest.mark.parametrize("family", ["apertus", "cwm"])
@pytest.mark.parametrize("stated", [{}, {"rope_scaling": None}, {"rope_parameters": None}])
def test_a_config_without_a_rope_has_the_classs_own(family: str, stated: dict[str, Any]) -> None:
    config = {"model_type": family, "max_position_embeddings": 65536, **SIZES, **stated}
    found = solve(read(config))
    rotary = transformers_model(config).model.rotary_emb
    assert np.allclose(found.inv_freq, rotary.inv_freq.numpy(), rtol=1e-6)
    assert found.attention_factor == rotary.attention_scaling
    default = config | {"rope_parameters": {"rope_type": "default"}}
    assert not np.allclose(solve(read(default)).inv_freq, found.inv_freq, rtol=1e-2)


def test_a_theta_that_the_classs_own_rope_does_not_have_is_refused() -> None:
    """transformers leaves it unread there."""
    config = {"model_type": "apertus", "max_position_embeddings": 65536, "rope_theta": 10000.0}
    with pytest.raises(RopeConfigError, match=r"rope_theta 10000\.0, but config\.json without"):
        read(config)


def test_a_falcon_without_a_length_has_the_classs_own() -> None:
    from transformers import FalconConfig

    config: dict[str, Any] = {"model_type": "falcon"}
    assert read(config).context == FalconConfig().max_position_embeddings
    with pytest.raises(RopeConfigError, match="max_position_embeddings; add it"):
        read({"model_type": "jais2"})


FALCON = {
    key: value for key, value in SIZES.items() if key not in ("intermediate_size", "head_dim")
}
NEWER = {"new_decoder_architecture": True}
UNRUN: dict[str, tuple[dict[str, Any], str]] = {
    "newer, sequential": (NEWER | {"parallel_attn": False}, "no layer that transformers runs"),
    "older, two norms": ({"num_ln_in_parallel_attn": 2}, "no layer that transformers runs"),
    "older, groups": ({"multi_query": False, "num_kv_heads": 2}, "num_kv_heads 2 needs new"),
    "three norms": (NEWER | {"num_ln_in_parallel_attn": 3}, "num_ln_in_parallel_attn = 3"),
}


@pytest.mark.parametrize("case", UNRUN)
def test_forms_of_falcon_that_no_class_runs_are_refused(case: str) -> None:
    import torch

    changes, text = UNRUN[case]
    config = {"model_type": "falcon", **FALCON, **changes}
    with pytest.raises(ConfigError, match=text) as refusal:
        build(config)
    assert "\n" not in str(refusal.value)
    with pytest.raises((AttributeError, RuntimeError, UnboundLocalError)):
        transformers_model(config)(torch.tensor([[1, 2, 3]]))


def test_key_value_heads_that_the_class_does_not_fill_in_are_missed() -> None:
    config = {"model_type": "nemotron", **SIZES}
    with pytest.raises(ConfigError, match="num_key_value_heads"):
        build(config)
    with pytest.raises(TypeError):
        transformers_model(config)
    assert build(config | {"num_key_value_heads": 2})


@pytest.mark.parametrize("bound", [0, -1.0, True, "8"])
def test_a_clamp_that_clamps_to_nothing_is_refused(bound: Any) -> None:
    """llama.cpp takes 0 for none, and the class for a bound."""
    with pytest.raises(ConfigError, match="clip_qkv must be a positive number"):
        build({"model_type": "olmo", **SIZES, "clip_qkv": bound})


# keys of published configs that say nothing more than their class does
BESIDE: dict[str, dict[str, Any]] = {
    "apertus": {"qk_norm": True, "post_norm": False, "mlp_bias": False},
    "nemotron": {"layer_norm_eps": 1e-5, "unk_token_id": 0, "pretraining_tp": 1},
    "starcoder2": {
        "activation_function": "gelu",
        "attention_softmax_in_fp32": True,
        "layer_norm_epsilon": 1e-5,
        "mlp_type": "default",
        "norm_type": "layer_norm",
        "scale_attention_softmax_in_fp32": True,
        "scale_attn_weights": True,
        "residual_dropout": 0.1,
        "embedding_dropout": 0.1,
    },
    "phi": {"embd_pdrop": 0.0, "resid_pdrop": 0.1, "qk_layernorm": False},
    "stablelm": {"hidden_dropout": 0.0, "use_parallel_residual": False, "qk_layernorm": False},
    "falcon": {
        "alibi": False,
        "apply_residual_connection_post_layernorm": False,
        "bias": False,
        "ff_factor": 4,
        "hidden_dropout": 0.0,
        "n_head": 4,
        "n_layer": 2,
    },
    "olmo": {"clip_qkv": None, "attention_bias": False},
    "persimmon": {"qk_layernorm": True, "hidden_dropout": 0.0},
}


@pytest.mark.parametrize("family", BESIDE)
def test_keys_of_published_configs_refuse_no_model(family: str) -> None:
    own = FALCON if family == "falcon" else SIZES
    own = {key: own[key] for key in own if key != "head_dim"}
    heads = {} if family in ("falcon", "persimmon") else {"num_key_value_heads": 4}
    config = {"model_type": family, **own, **heads}
    assert build(config | BESIDE[family]) == build(config)


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("apertus", "qk_norm", False),
        ("apertus", "post_norm", True),
        ("nemotron", "layer_norm_eps", 1e-3),
        ("falcon", "alibi", True),
    ],
)
def test_a_key_beside_that_says_something_is_refused(family: str, key: str, value: Any) -> None:
    config = {"model_type": family, **FALCON, "intermediate_size": 96, "num_key_value_heads": 4}
    with pytest.raises(ConfigError, match=f"{key} = {value!r}"):
        build(config | {key: value})
