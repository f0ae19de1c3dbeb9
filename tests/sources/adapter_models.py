"""Adapters as peft saves them, beside what peft's own merge makes of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.checkpoints import save_checkpoint

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
Weights = dict[str, NDArray[np.float32]]


def save_base(folder: Path, family: str = "llama", **config: Any) -> Path:
    """A tiny base model; untied unless told."""
    return save_checkpoint(folder, family, context=256, **{"tie_word_embeddings": False, **config})


def train(
    folder: Path, base: Path, *, seed: int = 0, resize: int | None = None, **settings: Any
) -> Weights:
    """Save an adapter of `base` whose numbers are all random, and return peft's merged model.

    settings: of peft's LoraConfig. resize: tokens to which the vocabulary grows first.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        if resize is not None:
            model.resize_token_embeddings(resize)
        chosen = {"target_modules": ATTENTION, "r": 4, "lora_alpha": 12, **settings}
        wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **chosen))
        with torch.no_grad():
            for parameter in wrapped.parameters():
                if parameter.requires_grad:
                    parameter.mul_(1 + 0.2 * torch.rand_like(parameter))
                    parameter.add_(0.05 * torch.randn_like(parameter))
        wrapped.save_pretrained(folder)
    return merged(folder, base, resize=resize)


def merged(folder: Path, base: Path, *, resize: int | None = None) -> Weights:
    """What peft's `merge_and_unload` makes of the saved adapter, in float32."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        if resize is not None:
            model.resize_token_embeddings(resize)
        whole = PeftModel.from_pretrained(model, folder).merge_and_unload()
    return {name: value.float().numpy() for name, value in whole.state_dict().items()}


def edit_config(folder: Path, **changes: Any) -> Path:
    """The adapter with other settings in its adapter_config.json."""
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def edit_tensors(folder: Path, change: Any) -> Path:
    """The adapter with `change` made to the dict of its tensors."""
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def distances(ours: Mapping[str, Any], theirs: Weights) -> dict[str, float]:
    """Weight -> the largest difference from peft's number, relative to the largest of its
    tensor.
    """
    found = {}
    for name, tensor in ours.items():
        rows = np.asarray(tensor.rows(0, tensor.shape[0]), np.float32)
        assert rows.shape == theirs[name].shape, name
        found[name] = float(np.abs(rows - theirs[name]).max() / np.abs(theirs[name]).max())
    return found
