"""A finished folder, opened for the proof."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.to_safetensors.run import Folder
from ropeconv.checkpoint.config import find_architecture, layer_types, read_dims
from ropeconv.checkpoint.index import open_checkpoint
from ropeconv.errors import CheckpointError
from ropeconv.model import Checkpoint
from ropeconv.provenance import read_folder_origin
from ropeconv.target import Artefact

TYPES = ("BF16", "F16", "F32")  # coarsest first


def open_artefact(path: Path) -> Artefact:
    """The folder as an Artefact; weights are not loaded yet. CheckpointError when it is no readable folder."""
    checkpoint = open_checkpoint(path)
    arch = find_architecture(checkpoint.config)
    folder = Folder(path)
    types = layer_types(checkpoint.config, arch, read_dims(checkpoint.config, arch))
    context = checkpoint.config.get("max_position_embeddings")
    if not isinstance(context, int):
        raise CheckpointError(f"{path}: config.json has no max_position_embeddings; add it")

    def logits(ids: Sequence[int], _context: int) -> Iterator[NDArray[np.float32]]:
        return folder.logits(ids)

    return Artefact(
        path=path,
        type=_type_name(checkpoint),
        provenance=read_folder_origin(path),
        checkpoint=checkpoint,
        original_context=checkpoint.config.get("original_max_position_embeddings", context),
        context=context,
        frequencies=folder.frequencies(types),
        problems=[],
        logits=logits,
        tokenize=folder.tokenize,
        vocabulary=folder.vocabulary,
        special_ids=folder.special_ids(),
    )


def _type_name(checkpoint: Checkpoint) -> str:
    """The coarsest type of the weights."""
    found = {tensor.dtype for tensor in checkpoint.tensors.values()}
    return next((name for name in TYPES if name in found), ", ".join(sorted(found)))
