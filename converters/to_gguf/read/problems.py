"""What keeps llama.cpp from loading a file, or from meaning what it says, beside rotary keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs import find_arch
from converters.to_gguf.quant.ggml import fits_blocks
from converters.to_gguf.quant.mix import NARROWER
from converters.to_gguf.quant.types import FILE_TYPES, PLAIN
from converters.to_gguf.rope.loader import TABLES
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.model import Tensor


def problems(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[str]:
    """One line each, empty = sound."""
    return [
        *_token_problems(metadata, tensors),
        *_type_problems(metadata, tensors),
        *_expert_problems(metadata),
        *_epsilon_problems(metadata),
        *_vector_problems(tensors),
    ]


def _token_problems(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[str]:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if tokens is None:
        return ["tokenizer.ggml.tokens is missing: the file has no vocabulary"]
    found = []
    embedding = tensors.get("token_embd.weight")
    if embedding is not None and len(tokens) != embedding.shape[0]:
        found.append(
            f"tokenizer.ggml.tokens has {len(tokens)} entries, "
            f"token_embd.weight {embedding.shape[0]} rows"
        )
    kinds = metadata.get("tokenizer.ggml.token_type")
    if isinstance(kinds, list) and len(kinds) != len(tokens):
        found.append(
            f"tokenizer.ggml.token_type has {len(kinds)} entries, "
            f"tokenizer.ggml.tokens {len(tokens)}"
        )
    return found


def _type_problems(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[str]:
    """Whether the file type, which chooses the limits, is the matrices'.

    A type of blocks is that of most of them, or what llama.cpp falls back to where rows do not fill
    its blocks.
    """
    number = metadata.get("general.file_type")
    claimed = next((row for row in FILE_TYPES.values() if row.number == number), None)
    stored = sorted({tensor.dtype for tensor in tensors.values() if len(tensor.shape) > 1})
    if claimed is None or not stored:
        return []
    blocks = any(dtype not in PLAIN for dtype in stored)
    narrower = NARROWER.get(claimed.base, claimed.base)
    widths = {tensor.shape[-1] for tensor in tensors.values() if len(tensor.shape) > 1}
    usual = {claimed.base, narrower}
    if not any(fits_blocks(narrower, width) for width in widths):
        usual.add("F16")
    if blocks == claimed.quantised and usual.intersection(stored):
        return []
    return [f"general.file_type says {claimed.name}, the tensors are {', '.join(stored)}"]


def _expert_problems(metadata: Mapping[str, Any]) -> list[str]:
    arch = find_arch(metadata)
    count = metadata.get(f"{arch.name}.expert_count")
    if not count or MixtureOfExperts in arch.runs:
        return []
    return [f"{arch.name}.expert_count is {count}; ropeconv knows dense models only of {arch.name}"]


def _epsilon_problems(metadata: Mapping[str, Any]) -> list[str]:
    epsilons = [value for key, value in metadata.items() if key.endswith("_epsilon")]
    return [f"a norm's epsilon is {e}; llama.cpp aborts on it" for e in epsilons if not e >= 0]


def _vector_problems(tensors: Mapping[str, Tensor]) -> list[str]:
    return [
        f"tensor {name} is {tensor.dtype}; llama.cpp computes with it in F32"
        for name, tensor in tensors.items()
        if (len(tensor.shape) == 1 or name in TABLES) and tensor.dtype != "F32"
    ]
