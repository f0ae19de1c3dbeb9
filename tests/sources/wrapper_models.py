"""Tiny random multimodal checkpoints of every wrapper: built, saved and run by transformers.

Nothing here calls ropeconv. `rename` writes a checkpoint in the other form that is published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.checkpoints import VOCAB, add_tokenizer

L = 256
TEXT: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "initializer_range": 0.15,
    "max_position_embeddings": L,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
HEADS = {"head_dim": 16}
ROPE = {"rope_type": "default", "rope_theta": 20000.0}
LOCAL = {"rope_type": "default", "rope_theta": 10000.0}
SHARE = {"rope_type": "proportional", "rope_theta": 20000.0, "partial_rotary_factor": 0.25}
IMAGES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
PATCHES = {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
VISUAL = {"depth": 2, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 64}
MISTRAL = {
    "vision_config": IMAGES | PATCHES | HEADS | {"model_type": "pixtral"},
    "image_token_index": 7,
}
# what a saved checkpoint calls the text model's places -> the other form that is published
INNER = {"language_model.model.": "model.language_model.", "language_model.lm_head.": "lm_head."}
OUTER = {"model.": "model.language_model."}


@dataclass(frozen=True)
class Wrapped:
    """A tiny wrapper.

    config: of its transformers class. family: what its text model is. left_out: what else it holds.
    other: places of the text model as saved -> as the other published form has them.
    """

    model_type: str
    family: str
    config: dict[str, Any]
    left_out: frozenset[str]
    other: Mapping[str, str] = field(default_factory=lambda: INNER)


PROJECTED = frozenset({"vision", "projector"})
SEEING = frozenset({"vision"})
WRAPPED: dict[str, Wrapped] = {
    "gemma3": Wrapped(
        "gemma3",
        "gemma3_text",
        {
            "text_config": TEXT
            | HEADS
            | {"num_hidden_layers": 6, "sliding_window": 64, "query_pre_attn_scalar": 16}
            | {"rope_parameters": {"full_attention": ROPE, "sliding_attention": LOCAL}},
            "vision_config": IMAGES | PATCHES | {"model_type": "siglip_vision_model"},
            "mm_tokens_per_image": 4,
            "image_token_index": 7,
        },
        PROJECTED,
    ),
    "gemma4": Wrapped(
        "gemma4",
        "gemma4_text",
        {
            "text_config": TEXT
            | HEADS
            | {"num_hidden_layers": 4, "sliding_window": 64, "global_head_dim": 32}
            | {"layer_types": ["sliding_attention", "full_attention"] * 2}
            | {"num_global_key_value_heads": 1, "attention_k_eq_v": True}
            | {"hidden_size_per_layer_input": 0, "pad_token_id": 0}
            | {"rope_parameters": {"full_attention": SHARE, "sliding_attention": LOCAL}},
            "vision_config": IMAGES | HEADS | {"num_attention_heads": 2, "num_key_value_heads": 2},
            "audio_config": None,
        },
        SEEING,
        {},
    ),
    "mistral3": Wrapped(
        "mistral3",
        "mistral",
        MISTRAL
        | {
            "text_config": TEXT
            | HEADS
            | {"model_type": "mistral", "sliding_window": None, "rope_parameters": ROPE},
            "tie_word_embeddings": False,
        },
        PROJECTED,
    ),
    "mistral3 of ministral3": Wrapped(
        "mistral3",
        "ministral3",
        MISTRAL
        | {
            "text_config": TEXT
            | HEADS
            | {
                "model_type": "ministral3",
                "rope_parameters": ROPE
                | {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": L // 4,
                    "llama_4_scaling_beta": 0.3,
                },
            }
        },
        PROJECTED,
    ),
    "qwen2_vl": Wrapped(
        "qwen2_vl",
        "qwen2",
        {
            "text_config": TEXT | {"rope_parameters": ROPE | {"mrope_section": [2, 3, 3]}},
            "vision_config": VISUAL | {"embed_dim": 32},
        },
        SEEING,
        OUTER,
    ),
    "qwen2_5_vl": Wrapped(
        "qwen2_5_vl",
        "qwen2",
        {
            "text_config": TEXT | {"rope_parameters": ROPE | {"mrope_section": [2, 3, 3]}},
            "vision_config": VISUAL | {"intermediate_size": 48},
        },
        SEEING,
        OUTER,
    ),
    "qwen3_5": Wrapped(
        "qwen3_5",
        "qwen3_5_text",
        {
            "text_config": TEXT
            | {"head_dim": 32, "layer_types": ["linear_attention", "full_attention"]}
            | {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
            | {"linear_key_head_dim": 16, "linear_value_head_dim": 16}
            | {"rope_parameters": ROPE | {"partial_rotary_factor": 0.25}},
            "vision_config": VISUAL | {"intermediate_size": 48, "num_position_embeddings": 16},
        },
        SEEING,
        {},
    ),
    "qwen3_vl": Wrapped(
        "qwen3_vl",
        "qwen3",
        {
            "text_config": TEXT
            | HEADS
            | {"rope_parameters": ROPE | {"mrope_section": [4, 2, 2], "mrope_interleaved": True}},
            "vision_config": VISUAL
            | {"intermediate_size": 48, "num_position_embeddings": 16}
            | {"deepstack_visual_indexes": [0]},
            "tie_word_embeddings": True,
        },
        SEEING,
        {},
    ),
}


def save(folder: Path, name: str, **config: Any) -> Path:
    """The wrapper's tiny checkpoint as transformers 5 saves it, with a tokenizer; config: keys of
    the outer config that are to be others.
    """
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

    wrapped = WRAPPED[name]
    values = json.loads(json.dumps(wrapped.config | config))
    torch.manual_seed(0)
    stated = CONFIG_MAPPING[wrapped.model_type](**values)
    model = AutoModelForImageTextToText.from_config(stated, dtype=torch.float32)
    with torch.no_grad():
        for place, weight in model.named_parameters():
            if weight.ndim == 1:  # starts at 1 or 0, which hides a lost one
                weight.add_(0.1 * torch.randn_like(weight))
            elif "embed_tokens" in place:
                weight.mul_(4)
    model.save_pretrained(folder)
    return add_tokenizer(folder)


def rename(folder: Path, places: Mapping[str, str]) -> None:
    """Write the folder's tensors under other names, those of the text model alone."""
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    save_file(
        {_renamed(name, places): value for name, value in load_file(path).items()},
        path,
        metadata={"format": "pt"},
    )


def _renamed(name: str, places: Mapping[str, str]) -> str:
    place = next((place for place in places if name.startswith(place)), None)
    return name if place is None else places[place] + name.removeprefix(place)


def edit_config(folder: Path, change: Any) -> None:
    """config.json as `change` makes it of the one that is there."""
    file = folder / "config.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


def wrapper_logits(folder: Path, ids: list[int]) -> Any:
    """(n, vocab) of the wrapper's own class for text alone."""
    from transformers import AutoModelForImageTextToText

    return _logits(AutoModelForImageTextToText, folder, ids)


def text_logits(folder: Path, ids: list[int]) -> Any:
    """(n, vocab) of the folder as a plain causal language model, every tensor read."""
    from transformers import AutoModelForCausalLM

    return _logits(AutoModelForCausalLM, folder, ids)


def _logits(loader: Any, folder: Path, ids: list[int]) -> Any:
    import torch

    model, told = loader.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([ids]), use_cache=False).logits[0].numpy()
