"""A finished folder, opened for the proof."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.to_safetensors.run import Folder
from ropeconv.arch.layers import find_kinds
from ropeconv.artefact import Artefact
from ropeconv.config.bundles import with_parts
from ropeconv.config.sizes import find_architecture, read_sizes
from ropeconv.errors import CheckpointError
from ropeconv.kit.float_types import COARSEST_FIRST
from ropeconv.model import Checkpoint
from ropeconv.provenance import read_folder_origin
from ropeconv.sources.folder import open_checkpoint


def open_artefact(path: Path) -> Artefact:
    """The folder as an Artefact; weights are not loaded yet. CheckpointError when it is no readable
    folder.
    """
    checkpoint = open_checkpoint(path)
    for read in checkpoint.files.values():
        read()  # refused here if they have another shape than transformers takes for granted
    arch = find_architecture(checkpoint.config)
    folder = Folder(path)
    sizes = read_sizes(checkpoint.config, arch)
    kinds = find_kinds(checkpoint.config, arch.layers, sizes, family=arch.name)
    checkpoint = with_parts(checkpoint, arch.stack(sizes, kinds))
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
        frequencies=folder.frequencies(kinds),
        problems=[],
        logits=logits,
        tokenize=folder.tokenize,
        vocabulary=folder.vocabulary,
        special_ids=folder.special_ids(),
        ends=folder.ends,
        chat_templates=folder.chat_templates(),
        flags_around=folder.flags_around(),
        merges=folder.merges if (path / "tokenizer.json").is_file() else None,
    )


def _type_name(checkpoint: Checkpoint) -> str:
    """The coarsest type of the weights."""
    found = {tensor.dtype for tensor in checkpoint.tensors.values()}
    return next((name for name in COARSEST_FIRST if name in found), ", ".join(sorted(found)))
