"""transformers' own rotary embeddings as the reference: real config classes, real modules, their
buffers.

Nothing here comes from ropeconv but the type under test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import (
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    Olmo2Config,
    Olmo3Config,
    Phi3Config,
    Qwen2Config,
    SmolLM3Config,
)
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.olmo2.modeling_olmo2 import Olmo2RotaryEmbedding
from transformers.models.olmo3.modeling_olmo3 import Olmo3RotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding
from transformers.models.smollm3.modeling_smollm3 import SmolLM3RotaryEmbedding
from transformers.utils import logging

logging.set_verbosity_error()


@dataclass(frozen=True)
class Family:
    config: type
    module: type
    default_theta: dict[str, float]
    default_partial: float = 1.0
    partials: tuple[float, ...] = (1.0,)
    rope_types: tuple[str, ...] = (
        "default",
        "linear",
        "dynamic",
        "yarn",
        "longrope",
        "llama3",
        "proportional",
    )
    nested: bool = False
    layers: tuple[str, ...] = ("full_attention",)


BOTH = ("sliding_attention", "full_attention")
FAMILIES = {
    "llama": Family(LlamaConfig, LlamaRotaryEmbedding, {"full_attention": 1e4}),
    "qwen2": Family(Qwen2Config, Qwen2RotaryEmbedding, {"full_attention": 1e4}),
    "olmo2": Family(Olmo2Config, Olmo2RotaryEmbedding, {"full_attention": 1e4}),
    "smollm3": Family(SmolLM3Config, SmolLM3RotaryEmbedding, {"full_attention": 2e6}),
    "phi3": Family(
        Phi3Config,
        Phi3RotaryEmbedding,
        {"full_attention": 1e4},
        partials=(0.25, 0.5, 0.75, 1.0),
        rope_types=("default", "longrope"),
    ),
    "gpt_neox": Family(
        GPTNeoXConfig,
        GPTNeoXRotaryEmbedding,
        {"full_attention": 1e4},
        default_partial=0.25,
        partials=(0.25, 0.5, 1.0),
    ),
    "gemma3_text": Family(
        Gemma3TextConfig,
        Gemma3RotaryEmbedding,
        {"full_attention": 1e6, "sliding_attention": 1e4},
        nested=True,
        layers=BOTH,
    ),
    "olmo3": Family(
        Olmo3Config,
        Olmo3RotaryEmbedding,
        {"full_attention": 5e5, "sliding_attention": 5e5},
        nested=True,
        layers=BOTH,
    ),
}


def build_config(name: str, head_dim: int, **keys: Any) -> Any:
    """A small config of the family; `keys` are what its config.json would say."""
    family = FAMILIES[name]
    shape: dict[str, Any] = {
        "hidden_size": 2 * head_dim,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
    }
    if name != "gpt_neox":
        shape["num_key_value_heads"] = 2
    if name == "gemma3_text":
        shape["head_dim"] = head_dim
    if family.nested:
        shape["layer_types"] = list(BOTH)
    if name == "phi3":
        shape["pad_token_id"] = 0
    return family.config(**shape, **keys)


def tables(
    config: Any, *, layer: str = "full_attention", length: int | None = None
) -> tuple[np.ndarray, float]:
    """(inv_freq (d/2,), attention factor) that transformers uses for a text of `length` tokens
    (None = at start).
    """
    family = FAMILIES[config.model_type]
    module = family.module(config)
    if length is not None:
        extra = {"layer_type": layer} if family.nested else {}
        module(torch.zeros(1), torch.tensor([[0, length - 1]]), **extra)
    prefix = f"{layer}_" if family.nested else ""
    inv_freq = getattr(module, f"{prefix}inv_freq")
    return inv_freq.double().numpy(), float(getattr(module, f"{prefix}attention_scaling"))


def compare(
    inv_freq: np.ndarray,
    attention_factor: float,
    reference: tuple[np.ndarray, float],
    *,
    base: np.ndarray | None = None,
) -> None:
    """AssertionError unless both agree to rtol 5e-6.

    base: unscaled frequencies, for kinds that blend scaled with unscaled ones: transformers blends
    in float32, so it is off by a few float32 steps of the unscaled frequency, which the division by
    the factor does not shrink.
    """
    expected, magnitude = reference
    assert inv_freq.shape == expected.shape
    slack = 0.0 if base is None else 4 * 2.0**-23 * base
    off = np.abs(inv_freq - expected) - 5e-6 * np.abs(expected) - slack
    assert off.max() <= 0, (
        f"pair {off.argmax()}: {inv_freq[off.argmax()]} for {expected[off.argmax()]}"
    )
    assert abs(attention_factor - magnitude) <= 5e-6 * magnitude, (
        f"magnitude {attention_factor} for {magnitude}"
    )
