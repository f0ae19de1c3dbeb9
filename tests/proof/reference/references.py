"""Tiny checkpoints, the reference of one layer at a time over them, and transformers' whole
model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.model import Checkpoint
from ropeconv.proof.reference.layerwise import LayerwiseReference
from ropeconv.sources.folder import open_checkpoint
from tests.families import make_model
from tests.methods import LONG, THETA, L, ramp

PLAIN = {"rope_type": "default", "rope_theta": THETA}
LONGROPE = LONG | {"rope_theta": THETA, "short_factor": ramp(1.5), "long_factor": ramp(4.0)}


def save(folder: Path, family: str, rope: Mapping[str, Any] = PLAIN, **config: Any) -> Checkpoint:
    """A tiny checkpoint of the family."""
    make_model(family, rope, context=4 * L, **config).save_pretrained(folder)
    return open_checkpoint(folder)


def layerwise(checkpoint: Checkpoint, **options: Any) -> LayerwiseReference:
    return LayerwiseReference(
        checkpoint.tensors, checkpoint.config, source=checkpoint.path, **options
    )


def text_logits(reference: LayerwiseReference, ids: list[int]) -> NDArray[np.float32]:
    (hidden,) = reference.hidden([reference.call([ids])])
    return np.concatenate(list(reference.head(hidden)))


def whole(checkpoint: Checkpoint) -> Any:
    """transformers' model as it loads it itself."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        checkpoint.path, dtype="float32", local_files_only=True
    ).eval()
