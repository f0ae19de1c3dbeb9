"""A checkpoint as transformers loads it: config object, model with weights, tokenizer."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.errors import CheckpointError, TokenizerError
from ropeconv.kit.foreign import first_line, no_panic
from ropeconv.model import Checkpoint, Tensor, row_count


def build_model(
    checkpoint: Checkpoint, config: Mapping[str, Any], *, dtype: str = "float32"
) -> Any:
    """transformers' causal language model with the checkpoint's weights under `config`;
    CheckpointError when it cannot be.

    dtype: torch's name of the type to compute in.
    """
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    stated = transformers_config(config)
    source: dict[str, Any] = {
        "pretrained_model_name_or_path": str(checkpoint.path),
        "local_files_only": True,
    }
    if not checkpoint.loadable:
        source = {"pretrained_model_name_or_path": None, "state_dict": _state_dict(checkpoint)}
    try:
        model, info = MODEL_FOR_CAUSAL_LM_MAPPING[type(stated)].from_pretrained(
            **source,
            config=stated,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
        )
    except Exception as error:  # its own classes, huggingface_hub's and torch's
        raise CheckpointError(
            f"{checkpoint.path}: transformers cannot build the reference ({first_line(error)})"
        ) from error
    _refuse_incomplete(checkpoint, info)
    return model.eval()


def _refuse_incomplete(checkpoint: Checkpoint, info: Mapping[str, Any]) -> None:
    """CheckpointError where transformers would make a weight up. info: what it says of loading."""
    for what in ("missing_keys", "mismatched_keys"):
        if info.get(what):
            name = sorted(map(str, info[what]))[0]
            raise CheckpointError(
                f"{checkpoint.path}: the reference has no weight for {name} ({what}); is it "
                f"complete?"
            )


def transformers_config(config: Mapping[str, Any]) -> Any:
    """The config object of the family that `model_type` names."""
    from transformers import AutoConfig

    values = {
        key: _number(value)
        for key, value in config.items()
        if key not in {"model_type", "torch_dtype", "dtype"}
    }
    try:
        made = AutoConfig.for_model(config["model_type"], **values)
    except Exception as error:  # its own classes and huggingface_hub's
        raise CheckpointError(
            f"transformers does not take the config ({first_line(error)})"
        ) from error
    # asked of its values: a class whose layers differ in it gives none away
    if vars(made).get("head_dim", 0) is None:  # which rope functions of 5.23 multiply
        made.head_dim = made.hidden_size // made.num_attention_heads
    return made


def _number(value: Any) -> Any:
    """transformers writes infinity, which JSON has not, as {"__float__": "Infinity"}."""
    if isinstance(value, Mapping):
        return (
            float(value["__float__"])
            if value.keys() == {"__float__"}
            else {key: _number(inner) for key, inner in value.items()}
        )
    return [_number(inner) for inner in value] if isinstance(value, list) else value


def _state_dict(checkpoint: Checkpoint) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(_whole(tensor)) for name, tensor in checkpoint.tensors.items()}


def _whole(tensor: Tensor) -> NDArray[np.float32]:
    return np.array(tensor.rows(0, row_count(tensor.shape)), np.float32).reshape(tensor.shape)


def has_tokenizer(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint brings tokenizer files."""
    return any(name.startswith(("tokenizer.", "vocab.json")) for name in checkpoint.files)


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """transformers' tokenizer out of the checkpoint's files; TokenizerError when they do not make
    one.
    """
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        for name, read in checkpoint.files.items():
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(read())
        Path(folder, "config.json").write_text(json.dumps(dict(checkpoint.config)))
        try:
            with no_panic():
                return AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # its tokenizers library raises the class itself
            raise TokenizerError(
                f"{checkpoint.path}: transformers cannot load the tokenizer ({first_line(error)})"
            ) from error
