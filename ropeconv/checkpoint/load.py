"""Checkpoint -> Model: every tensor is read, or dropped by name, or the checkpoint is refused."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ropeconv.arch._base import Architecture, Dims, Role, Weight
from ropeconv.checkpoint.config import check_keys, find_architecture, layer_types, read_dims
from ropeconv.checkpoint.index import open_checkpoint
from ropeconv.checkpoint.rope_parameters import read_ropes
from ropeconv.errors import CheckpointError
from ropeconv.model import Checkpoint, Model, Tensor

TIE_ROWS = 4096


def load_model(source: str | Path, *, original_context: int | None = None, ignore: Collection[str] = ()) -> Model:
    """Open `source` and understand it; headers only. See `understand`."""
    return understand(open_checkpoint(source), original_context=original_context, ignore=ignore)


def understand(checkpoint: Checkpoint, *, original_context: int | None = None, ignore: Collection[str] = ()) -> Model:
    """A checkpoint as a Model.

    original_context: the trained context L when the config does not say. ignore: config keys the user vouches for.
    Raises ConfigError, RopeConfigError or CheckpointError; nothing has been converted by then.
    """
    config = checkpoint.config
    arch = find_architecture(config)
    check_keys(config, arch, ignore=ignore)
    dims = read_dims(config, arch)
    types = layer_types(config, arch, dims)
    if not any(kind == "sliding_attention" for kind in types):
        dims = replace(dims, sliding_window=None)
    ropes = read_ropes(
        config,
        layer_types=types,
        head_dim=dims.head_dim,
        default_theta=arch.default_theta,
        default_partial=arch.default_partial,
        original_context=original_context,
        nested=arch.nested_rope,
        yarn_is_longrope=arch.rope_types is not None and "yarn" not in arch.rope_types,
        takes_partial=arch.takes_partial,
    )
    weights = account(checkpoint.tensors, arch, dims, config=config)
    return Model(arch, dims, types, ropes, weights, checkpoint)


def account(
    tensors: Mapping[str, Tensor], arch: Architecture, dims: Dims, *, config: Mapping[str, Any]
) -> dict[str, tuple[Weight, int | None]]:
    """Hugging Face name -> the row of the family's table, for every weight the forward pass reads.

    CheckpointError when one is missing, has another shape or type, or when a tensor is left over.
    """
    wanted = _expand(arch, dims, config)
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise CheckpointError(f"tensor {missing[0]} is missing ({len(missing)} of {len(wanted)}); is the checkpoint complete?")
    for name, (weight, _) in wanted.items():
        shape = dims.evaluate(weight.shape)
        if tuple(tensors[name].shape) != shape:
            raise CheckpointError(f"tensor {name} has shape {tuple(tensors[name].shape)}, config.json says {shape}")
        _check_dtype(name, tensors[name])
    if dims.tied:
        _check_tie(tensors, arch)
    drops = [_pattern(template) for template in arch.drops] + ([_pattern(_head(arch))] if dims.tied else [])
    stray = [name for name in tensors if name not in wanted and not any(drop.fullmatch(name) for drop in drops)]
    if stray:
        raise CheckpointError(f"{len(stray)} tensors that {arch.name} has no place for: {', '.join(sorted(stray)[:4])}")
    return wanted


def _expand(arch: Architecture, dims: Dims, config: Mapping[str, Any]) -> dict[str, tuple[Weight, int | None]]:
    wanted: dict[str, tuple[Weight, int | None]] = {}
    for weight in arch.weights:
        if weight.when is not None and not config.get(weight.when, arch.expects[weight.when][0]):
            continue
        if weight.role is Role.OUTPUT and dims.tied:
            continue  # `account` sees to it that a head in the file is the embedding
        if not weight.per_layer:
            wanted[weight.template] = (weight, None)
            continue
        for layer in range(dims.num_layers):
            wanted[weight.template.format(n=layer)] = (weight, layer)
    return wanted


def _check_tie(tensors: Mapping[str, Tensor], arch: Architecture) -> None:
    """transformers leaves a head that differs from the embedding untied, whatever tie_word_embeddings says."""
    embedding = next(weight.template for weight in arch.weights if weight.role is Role.TOKEN_EMBEDDING)
    head, table = tensors.get(_head(arch)), tensors[embedding]
    if head is None:
        return
    same = tuple(head.shape) == tuple(table.shape) and head.dtype == table.dtype
    for start in range(0, table.shape[0] if same else 0, TIE_ROWS):
        stop = min(start + TIE_ROWS, table.shape[0])
        same = same and bool((head.raw_rows(start, stop) == table.raw_rows(start, stop)).all())
    if not same:
        raise CheckpointError(
            f"config.json says tie_word_embeddings, and {_head(arch)} differs from {embedding}; "
            f"set tie_word_embeddings to false or remove the tensor"
        )


def _check_dtype(name: str, tensor: Tensor) -> None:
    # block types count as numbers: ggml's, and int4 and int8 of a finished ONNX folder that the proof reads back
    if tensor.dtype in {"F32", "F16", "BF16", "int4", "int8"} or tensor.dtype.startswith(("Q", "IQ")):
        return
    raise CheckpointError(f"tensor {name} is stored as {tensor.dtype}; ropeconv reads float32, float16 and bfloat16")


def _head(arch: Architecture) -> str:
    return next(weight.template for weight in arch.weights if weight.role is Role.OUTPUT)


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(re.escape("{n}"), r"\d+"))
