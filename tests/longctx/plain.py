"""The same questions asked of transformers alone, without a line of ropeconv."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def load(
    folder: Path,
    rope: Mapping[str, Any] | None = None,
    *,
    context: int | None = None,
    work: Path | None = None,
) -> Any:
    """transformers' model of a folder; other rope_parameters are written to a copy in `work`."""
    from transformers import AutoModelForCausalLM

    if rope is not None:
        assert work is not None
        copy = work / "plain"
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        config = json.loads((folder / "config.json").read_text())
        config |= {"rope_parameters": dict(rope), "max_position_embeddings": context}
        (copy / "config.json").write_text(json.dumps(config))
        folder = copy
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()


def losses(model: Any, ids: Sequence[int], positions: Sequence[int] | None = None) -> np.ndarray:
    """(n - 1,) losses of one pass over all tokens."""
    import torch

    tokens = torch.tensor([list(ids)])
    extra = {}
    if positions is not None:
        extra = {
            "position_ids": torch.tensor([list(positions)]),
            "attention_mask": torch.ones_like(tokens),
        }
    with torch.no_grad():
        logits = model(tokens, use_cache=False, **extra).logits[0]
    picked = torch.log_softmax(logits.double(), -1)[:-1].gather(1, tokens[0, 1:, None])[:, 0]
    return -picked.numpy()
