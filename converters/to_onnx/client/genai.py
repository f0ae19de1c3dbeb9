"""genai_config.json: onnxruntime-genai takes names, sizes and search settings from it, and no other
file but the tokenizer's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.to_onnx.client.crossing import genai_type
from converters.to_onnx.client.states import genai_states, state_names
from ropeconv.arch.stack import Stack
from ropeconv.errors import ConfigError
from ropeconv.model import Model

SEARCH: dict[str, Any] = {
    "do_sample": False,
    "early_stopping": True,
    "length_penalty": 1.0,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
}
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def genai_config(
    model: Model,
    graph: str,
    *,
    ids: Mapping[str, Any],
    generation: Mapping[str, Any],
    shares_buffer: bool,
) -> dict[str, Any]:
    """The file's values for a graph of the folder. ids: those of SPECIAL_IDS that there are;
    generation: its config.
    """
    context = model.main_rope.context
    stated = {key: generation[key] for key in SEARCH if generation.get(key) is not None}
    search = {**SEARCH, **stated, "max_length": context, "past_present_share_buffer": shares_buffer}
    described = {
        **ids,
        "context_length": context,
        "decoder": _decoder(model.stack, graph),
        "type": genai_type(model),
        "vocab_size": model.stack.vocab_size,
    }
    return {"model": described, "search": search}


def _decoder(stack: Stack, graph: str) -> dict[str, Any]:
    """Names and sizes of the graph."""
    attention = stack.attention
    inputs, outputs = state_names(stack)
    return {
        **genai_states(stack),
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": graph,
        "head_size": attention.head_dim,
        "hidden_size": stack.hidden_size,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "position_ids": "position_ids",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
            **inputs,
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
            **outputs,
        },
        "num_attention_heads": attention.num_heads,
        "num_hidden_layers": len(stack.layers),
        "num_key_value_heads": attention.num_kv_heads,
    }


def special_ids(model: Model, generation: Mapping[str, Any]) -> dict[str, Any]:
    """bos, eos (one id or several) and padding.

    generation_config.json comes before config.json, as in transformers. ConfigError without an end.
    """
    found: dict[str, Any] = {}
    for key in SPECIAL_IDS:
        value = generation.get(key)
        value = model.checkpoint.config.get(key) if value is None else value
        if value is not None:
            found[key] = _check_ids(key, value, vocab_size=model.stack.vocab_size)
    if "eos_token_id" not in found:
        raise ConfigError(
            "neither generation_config.json nor config.json has an eos_token_id; "
            "add it, or clients never stop"
        )
    if "pad_token_id" not in found:  # as generation does, in transformers and genai alike
        eos = found["eos_token_id"]
        found["pad_token_id"] = eos[0] if isinstance(eos, list) else eos
    return found


def _check_ids(key: str, value: Any, *, vocab_size: int) -> Any:
    several = value if isinstance(value, list) and key == "eos_token_id" else [value]
    if not several or not all(_is_id(one, vocab_size) for one in several):
        raise ConfigError(
            f"{key} {value!r} is no token id below vocab_size {vocab_size}; "
            f"mend generation_config.json"
        )
    return value


def _is_id(value: Any, vocab_size: int) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and 0 <= value < vocab_size
