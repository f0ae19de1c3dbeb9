"""Which files make up a checkpoint: one folder, its weight files, its text files, its
fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from ropeconv import registry
from ropeconv.config.wrapper import is_covered, refuse_uncovered, text_checkpoint
from ropeconv.errors import CheckpointError, RopeconvError
from ropeconv.model import Checkpoint, Tensor
from ropeconv.sources.adapter import merge_adapter
from ropeconv.sources.adapter_config import AdapterConfig, read_adapter_config
from ropeconv.sources.hub import locate
from ropeconv.sources.pytorch import open_torch
from ropeconv.sources.quantised._open import dequantised
from ropeconv.sources.safetensors import open_safetensors, scattered
from ropeconv.sources.texts import read_json, text_files
from ropeconv.sources.unread import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG,
    TRAINED_WHOLE,
    is_adapter,
    unread_files,
)
from ropeconv.sources.weights import read_shards, weights_of

ROW_BYTES = 4096  # of a row, in a fingerprint


def open_checkpoint(
    source: str | Path, *, original_context: int | None = None, base: str | Path | None = None
) -> Checkpoint:
    """A folder, a single-file checkpoint of a target that reads its own format (GGUF), a LoRA
    adapter's folder, or a hub id; headers only.

    original_context: the trained length of a single file that does not say it; a folder's config is
    not touched. base: the model under an adapter, where the adapter names no folder. Raises
    CheckpointError with what is missing, damaged or unknown.
    """
    path = locate(source)
    if path.is_file():
        if base is not None:
            raise _no_adapter(path)
        return _open_file(path, original_context=original_context)
    if not path.is_dir():
        raise CheckpointError(
            f"{path}: neither a folder nor a file; give a Hugging Face folder, a GGUF file or a "
            f"hub id"
        )
    if is_adapter(path):
        return _open_adapter(path, base)
    if base is not None:
        raise _no_adapter(path)
    return _open_folder(path)


def refuse_family(source: str | Path) -> None:
    """ConfigError for a folder whose config.json names a family that is not covered: nothing else
    of it is read.
    """
    config = Path(source) / CONFIG
    if config.is_file() and not is_adapter(Path(source)):
        refuse_uncovered(read_json(config, missing="not a checkpoint folder"))


def _no_adapter(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: --base belongs to an adapter, and this is none; leave it out")


def _open_file(path: Path, *, original_context: int | None) -> Checkpoint:
    for target in registry.targets().values():
        if target.reader is not None and target.recognizes(path):
            opened = target.reader.open_checkpoint(path)
            # of the file, whatever a user adds
            own = cache(partial(fingerprint, opened.config, opened.tensors))
            if original_context is not None:
                opened = target.reader.open_checkpoint(path, original_context=original_context)
            return replace(opened, identify=own)
    raise CheckpointError(
        f"{path}: not a checkpoint file that ropeconv reads (GGUF); for safetensors give the folder"
    )


def _open_folder(folder: Path) -> Checkpoint:
    config = read_json(folder / CONFIG, missing="not a checkpoint folder")
    weights = weights_of(folder)
    tensors = read_shards(folder, weights.names, weights.reader)
    whole = Checkpoint(
        path=folder,
        format=weights.format,
        config=config,
        tensors=tensors,
        files=text_files(folder),
        identify=cache(partial(fingerprint, config, tensors)),
        unread=unread_files(folder, weights.names),
    )
    try:
        return text_checkpoint(dequantised(whole))
    except RopeconvError:
        # nobody computes with the numbers of a family that is not covered
        if is_covered(config):
            raise
        return text_checkpoint(whole)


def _open_adapter(folder: Path, base: str | Path | None) -> Checkpoint:
    """The adapter merged into `base`, or into the folder that it names itself."""
    stated = read_json(folder / ADAPTER_CONFIG, missing="not an adapter's folder")
    config = read_adapter_config(stated, where=folder / ADAPTER_CONFIG)
    names = [name for name in ADAPTER_WEIGHTS if (folder / name).exists()][:1]
    names += [TRAINED_WHOLE] * (folder / TRAINED_WHOLE).exists()
    unread = unread_files(folder, names)
    place = _base_of(folder, config) if base is None else base
    if Path(place).is_dir() and is_adapter(Path(place)):
        raise CheckpointError(
            f"{folder}: its base {place} is an adapter too; write that one as a folder first "
            f"(ropeconv safetensors) and give it with --base"
        )
    under = open_checkpoint(place)
    tensors = read_shards(folder, names, _open_either)
    merged = merge_adapter(
        under,
        folder=folder,
        config=config,
        tensors=tensors,
        files=text_files(folder),
        identify=cache(partial(fingerprint, stated, tensors)),
    )
    return replace(merged, unread=unread)


def _base_of(folder: Path, config: AdapterConfig) -> Path:
    named = None if config.base is None else Path(config.base)
    if named is None or not named.is_dir():
        of = "" if named is None else f" of {config.base}"
        raise CheckpointError(
            f"{folder}: a LoRA adapter{of}, which is no model by itself; give the model's folder "
            f"or hub id with --base"
        )
    return named


def _open_either(path: Path) -> dict[str, Tensor]:
    return open_torch(path) if path.suffix == ".bin" else open_safetensors(path)


def fingerprint(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the config, every tensor's name, type and shape, and the first and last row of
    each (4 KiB at most).

    It tells one checkpoint from another in milliseconds; it is no proof against a forger.
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    with scattered(tensors.values()):
        for name in sorted(tensors):
            tensor = tensors[name]
            digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
            if tensor.shape and tensor.shape[0]:
                digest.update(_start_of_row(tensor, 0))
                digest.update(_start_of_row(tensor, tensor.shape[0] - 1))
    return digest.hexdigest()


def _start_of_row(tensor: Tensor, row: int) -> bytes:
    """At most ROW_BYTES of it: a row of stacked experts is a whole matrix."""
    return tensor.raw_rows(row, row + 1).reshape(-1)[:ROW_BYTES].tobytes()
