"""Clients that cannot run a folder though it is sound: they choose classes and sizes by what
config.json calls the model.

Sources, each run on every family: transformers.js 4.3 src/models/registry.js and src/configs.js;
optimum-onnx 0.1 optimum/onnxruntime/modeling_decoder.py, with its transformers 4.57.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.to_onnx.client.states import state_layers
from ropeconv.arch.stack import Stack
from ropeconv.finding import NOTE, Finding

NODE, OPTIMUM = "transformers.js", "optimum-onnx"
VERSIONS = {NODE: f"{NODE} 4.3", OPTIMUM: f"{OPTIMUM} 0.1"}

NODE_LACKS = frozenset(
    [
        "cwm",
        "deepseek_v2",
        "dots1",
        "ernie4_5_moe",
        "exaone4",
        "gemma4_text",
        "glm4",
        "glm4_moe",
        "glm4_moe_lite",
        "granite_swa",
        "granitemoe",
        "granitemoe_swa",
        "granitemoeshared",
        "hunyuan_v1_moe",
        "hy_v3",
        "hyperclovax",
        "internlm3",
        "iquestcoder",
        "jais2",
        "mellum",
        "minicpm3",
        "minimax_m2",
        "mixtral",
        "nemotron",
        "olmoe",
        "persimmon",
        "seed_oss",
    ]
)
OPTIMUM_LACKS = frozenset(
    [
        "cwm",
        "gemma4_text",
        "glm4_moe_lite",
        "granite_swa",
        "granitemoe_swa",
        "hy_v3",
        "hyperclovax",
        "internlm3",
        "iquestcoder",
        "jais2",
        "lfm2_moe",
        "mellum",
        "minicpm3",
        "minimax_m2",
        "ministral3",
        "qwen3_5_moe_text",
        "qwen3_5_text",
        "solar_open",
        "youtu",
    ]
)
# model types whose key/value heads, and whose head size, optimum reads; it takes the heads, and the
# hidden size over them, for those of all others
OPTIMUM_COUNTS = frozenset(
    [
        "arcee",
        "cohere",
        "falcon",
        "gemma",
        "gemma3_text",
        "glm",
        "gpt_oss",
        "granite",
        "helium",
        "llama",
        "mistral",
        "nemotron",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "smollm3",
        "stablelm",
    ]
)
OPTIMUM_MEASURES = frozenset(("gemma", "gemma3_text", "gpt_oss", "nemotron"))
# both look for layers called `attention`, as published checkpoints call them
CALLED_ATTENTION = frozenset(("granitemoehybrid",))
# transformers.js has one class for text alone and for text with images
TAKEN_FOR_VISION = frozenset(("qwen3_5_moe_text", "qwen3_5_text"))
LACKS = "has no class for it"
MISNAMED = "knows its layer_types only as `attention`"


def client_gaps(config: Mapping[str, Any], stack: Stack) -> Finding | None:
    """The clients that cannot run the model, None where all can. config: as in config.json."""
    found = {NODE: _of_node(config), OPTIMUM: _of_optimum(config, stack)}
    effects = {VERSIONS[name]: text for name, text in found.items() if text is not None}
    if not effects:
        return None
    return Finding(
        "D12",
        NOTE,
        f"model_type {config['model_type']}",
        effects,
        "onnxruntime and onnxruntime-genai run the folder",
    )


def _of_node(config: Mapping[str, Any]) -> str | None:
    name = config["model_type"]
    if name in NODE_LACKS:
        return LACKS
    if _is_misnamed(config):
        return MISNAMED
    if name in TAKEN_FOR_VISION:
        return "looks for a vision model beside it"
    if name == "falcon" and config.get("multi_query", True):
        return "looks for one cache a layer where the config says multi_query"
    return None


def _of_optimum(config: Mapping[str, Any], stack: Stack) -> str | None:
    name, block = config["model_type"], stack.attention
    if name in OPTIMUM_LACKS:
        return LACKS
    if _is_misnamed(config):
        return MISNAMED
    if len(stack.attentions) < len(stack.layers):
        return "gives no states to layers without attention"
    if state_layers(stack):
        return "gives no states to attention layers"
    if name not in OPTIMUM_COUNTS and block.num_kv_heads != block.num_heads:
        return "takes its heads for its key/value heads"
    size = stack.hidden_size // block.num_heads
    if name not in OPTIMUM_MEASURES and block.head_dim != size:
        return f"takes {size} for its head size"
    return None


def _is_misnamed(config: Mapping[str, Any]) -> bool:
    layers = config.get("layer_types") or ()
    return config["model_type"] in CALLED_ATTENTION and set(layers) != {"attention"}
