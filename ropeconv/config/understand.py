"""Checkpoint -> Model: every tensor is read, or dropped by name, or the checkpoint is refused."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ropeconv.arch.family import Architecture
from ropeconv.arch.layers import find_kinds
from ropeconv.arch.stack import Place, Stack
from ropeconv.config.bundles import stored_name, with_parts
from ropeconv.config.names import with_plain_names
from ropeconv.config.rope_parameters import ROPE_DICTS, read_ropes
from ropeconv.config.sizes import check_keys, find_architecture, read_sizes
from ropeconv.config.ties import same_table
from ropeconv.errors import CheckpointError
from ropeconv.model import Checkpoint, Model, Tensor

# angles that older releases of transformers saved; every later one makes its own of the config
BUFFERS = re.compile(r"(.+\.)?rotary_emb\.(inv_freq|cos_cached|sin_cached)")
# types of blocks, which count as numbers: ggml's, and those of an ONNX folder that is read back
BLOCKS = ("Q", "IQ", "TQ", "MXFP4", "NVFP4", "int")


def understand(
    checkpoint: Checkpoint, *, original_context: int | None = None, ignore: Collection[str] = ()
) -> Model:
    """A checkpoint as a Model.

    original_context: the trained context L when the config does not say. ignore: config keys the
    user vouches for. Raises ConfigError, RopeConfigError or CheckpointError; nothing has been
    converted by then.
    """
    config = checkpoint.config
    arch = find_architecture(config)
    check_keys(config, arch, ignore=ignore)
    sizes = read_sizes(config, arch)
    kinds = find_kinds(config, arch.layers, sizes, family=arch.name)
    stack = arch.stack(sizes, kinds)
    ropes = read_ropes(
        _without(config, ignore),
        rotary_sizes={kind: layer.mixer.rotary_size for kind, layer in stack.by_kind.items()},
        spelling=arch.rope,
        original_context=original_context,
    )
    checkpoint = with_parts(with_plain_names(checkpoint, stack), stack)
    weights = account(checkpoint.tensors, arch, stack)
    checkpoint = replace(checkpoint, vouched=_vouched(config, ignore))
    return Model(arch, sizes, stack, ropes, weights, checkpoint)


def _vouched(config: Mapping[str, Any], ignore: Collection[str]) -> tuple[str, ...]:
    """The keys to ignore that are there."""
    inside = [config[key] for key in ROPE_DICTS if isinstance(config.get(key), Mapping)]
    return tuple(sorted(key for key in set(ignore) if any(key in d for d in (config, *inside))))


def stack_of(config: Mapping[str, Any]) -> Stack:
    """The blocks that a config.json says; ConfigError where it says none that are known."""
    arch = find_architecture(config)
    sizes = read_sizes(config, arch)
    return arch.stack(sizes, find_kinds(config, arch.layers, sizes, family=arch.name))


def _without(config: Mapping[str, Any], ignore: Collection[str]) -> dict[str, Any]:
    """The config whose rope dicts lack the keys that the user vouches for."""
    return {
        key: {k: v for k, v in value.items() if k not in ignore}
        if key in ROPE_DICTS and isinstance(value, Mapping)
        else value
        for key, value in config.items()
    }


def account(tensors: Mapping[str, Tensor], arch: Architecture, stack: Stack) -> dict[str, Place]:
    """Hugging Face name -> where it belongs, for every weight the forward pass reads.

    CheckpointError when one is missing, has another shape or type, or when a tensor is left over.
    """
    wanted = stack.places()
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise _incomplete(missing, tensors, stack, wanted=len(wanted))
    for name, place in wanted.items():
        shape = place.weight.shape
        if tuple(tensors[name].shape) != shape:
            raise CheckpointError(
                f"tensor {name} has shape {tuple(tensors[name].shape)}, config.json says {shape}"
            )
        _check_dtype(name, tensors[name])
    drops = [BUFFERS, *(_pattern(template) for template in arch.drops)]
    if stack.tied:
        _check_tie(tensors, stack)
        drops.append(_pattern(stack.head.output.weight.template))
    stray = [
        name
        for name in tensors
        if name not in wanted
        and not any(drop.fullmatch(name) for drop in drops)
        and not _adds_nothing(name, tensors[name], wanted)
    ]
    if stray:
        count = f"{len(stray)} tensors" if len(stray) > 1 else "1 tensor"
        raise CheckpointError(
            f"{count} that {arch.name} has no place for: {', '.join(sorted(stray)[:4])}"
        )
    return wanted


def _adds_nothing(name: str, tensor: Tensor, wanted: Collection[str]) -> bool:
    """Whether it is a bias of zeros, which AutoGPTQ of 2023 saved for layers that have none."""
    if not name.endswith(".bias") or name.removesuffix("bias") + "weight" not in wanted:
        return False
    _check_dtype(name, tensor)
    return len(tensor.shape) == 1 and not tensor.rows(0, tensor.shape[0]).any()


def _incomplete(
    missing: Sequence[str], tensors: Mapping[str, Tensor], stack: Stack, *, wanted: int
) -> CheckpointError:
    """What is missing; or that quantised numbers are in its place; or that head and embedding may
    be one.
    """
    first = stored_name(missing[0], stack)
    stem = first.removesuffix("weight")
    others = (name for name in tensors if name.startswith(stem) and name != f"{stem}bias")
    instead = None if stem == first else next(others, None)
    if instead is not None:
        return CheckpointError(
            f"tensor {first} is missing, and {instead} is there: quantised weights; convert "
            f"the unquantised checkpoint instead"
        )
    if list(missing) == [stack.head.output.weight.template]:
        return CheckpointError(
            f"tensor {first} is missing, and config.json ties it to no embedding: set "
            f"tie_word_embeddings to true where the two are one; else the head was not saved"
        )
    return CheckpointError(
        f"tensor {first} is missing ({len(missing)} of {wanted}); is the checkpoint complete?"
    )


def _check_tie(tensors: Mapping[str, Tensor], stack: Stack) -> None:
    """transformers leaves a head that differs from the embedding untied, whatever the config
    says.
    """
    embedding = stack.embedding.weight.template
    name = stack.head.output.weight.template
    head = tensors.get(name)
    table = tensors[embedding]
    if head is None:
        return
    if not same_table(head, table):
        raise CheckpointError(
            f"config.json says tie_word_embeddings, and {name} differs from {embedding}; "
            f"set tie_word_embeddings to false or remove the tensor"
        )


def _check_dtype(name: str, tensor: Tensor) -> None:
    plain = {"F32", "F16", "BF16"}
    if tensor.dtype in plain or tensor.dtype.startswith(BLOCKS):
        return
    raise CheckpointError(
        f"tensor {name} is stored as {tensor.dtype}; ropeconv reads float32, float16 and bfloat16"
    )


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(re.escape("{n}"), r"\d+"))
