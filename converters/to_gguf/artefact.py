"""A finished GGUF file, opened for the proof."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf import run
from converters.to_gguf._special_tokens import ENDS
from converters.to_gguf._token_table import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from converters.to_gguf.families import ROPE_TABLES
from converters.to_gguf.metadata import read_provenance
from converters.to_gguf.run_rope import frequencies, rope_problems
from converters.to_gguf.source import GgufTensor, find_layout, open_checkpoint, open_tensors, read_metadata
from converters.to_gguf.types import FILE_TYPES, PLAIN
from ropeconv.arch._base import Architecture
from ropeconv.rope.spec import Frequencies
from ropeconv.target import Artefact, Raw

KINDS = {NORMAL: "normal", UNKNOWN: "unknown", CONTROL: "control", USER_DEFINED: "user", UNUSED: "unused", BYTE: "byte"}


def open_artefact(path: Path, families: Mapping[str, Architecture]) -> Artefact:
    """The file as an Artefact; nothing is run yet. CheckpointError when it is no readable GGUF file."""
    checkpoint = open_checkpoint(path, families)
    path = checkpoint.path
    metadata, tensors = checkpoint.metadata, open_tensors(path)
    arch = find_layout(metadata).arch
    problems = [*rope_problems(metadata, tensors), *_problems(metadata, tensors)]
    context = int(metadata[f"{arch}.context_length"])
    return Artefact(
        path=path,
        type=_type_name(metadata),
        provenance=read_provenance(metadata),
        checkpoint=checkpoint,
        original_context=int(metadata.get(f"{arch}.rope.scaling.original_context_length", context)),
        context=context,
        original_context_counts=_counts(metadata, arch),
        frequencies={} if problems else _frequencies(metadata, tensors),
        problems=problems,
        logits=partial(_logits, path),
        tokenize=partial(run.tokenize, path),
        vocabulary=partial(run.vocabulary, path),
        special_ids=_special_ids(metadata),
        token_kinds=partial(_token_kinds, metadata),
        ends=partial(_ends, path, metadata),
        chat_templates=_chat_templates(metadata),
    )


def open_raw(path: Path) -> Raw:
    """The file's keys and tensors as they are, and what llama.cpp makes of the rotary ones."""
    metadata, tensors = read_metadata(path), open_tensors(path)
    return Raw(metadata, tensors, rope_problems(metadata, tensors), partial(_frequencies, metadata, tensors))


def _logits(path: Path, ids: Sequence[int], context: int) -> Iterator[NDArray[np.float32]]:
    return run.logits(path, ids, context)


def _frequencies(metadata: Mapping[str, Any], tensors: Mapping[str, GgufTensor]) -> dict[str, Frequencies | None]:
    return dict(frequencies(metadata, tensors))


def _type_name(metadata: Mapping[str, Any]) -> str:
    number = metadata.get("general.file_type")
    return next((row.name for row in FILE_TYPES.values() if row.number == number), f"file type {number}")


def _counts(metadata: Mapping[str, Any], arch: str) -> bool:
    """Whether the file says the trained length, or llama.cpp takes context_length for it: YaRN's ramp, LongRoPE's switch.

    llama.cpp's own converter leaves the key out of files whose table says it all (Llama 3).
    """
    stated = f"{arch}.rope.scaling.original_context_length" in metadata
    return stated or metadata.get(f"{arch}.rope.scaling.type") in ("yarn", "longrope")


def _special_ids(metadata: Mapping[str, Any]) -> dict[str, int]:
    return {
        key.removeprefix("tokenizer.ggml.").removesuffix("_token_id"): int(value)
        for key, value in metadata.items()
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id")
    }


def _token_kinds(metadata: Mapping[str, Any]) -> list[str]:
    """The file's own word for every token, before llama.cpp mends what looks wrong to it; it takes "normal" for silence."""
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    types = metadata.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    return [KINDS.get(number, f"type {number}") for number in types]


def _ends(path: Path, metadata: Mapping[str, Any]) -> dict[int, bool]:
    """Where llama.cpp stops -> whether the file says so; a text that it always takes for an end does not count as said."""
    tokens, ids = metadata.get("tokenizer.ggml.tokens", []), _special_ids(metadata)
    stated = {ids[name] for name in ("eot", "eom") if name in ids}  # eos is compared by its id
    return {i: i in stated and tokens[i] not in ENDS for i in run.ends(path)}


def _chat_templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    head = "tokenizer.chat_template"
    named = {key.removeprefix(f"{head}."): str(text) for key, text in metadata.items() if key.startswith(f"{head}.")}
    return named | ({"default": str(metadata[head])} if head in metadata else {})


def _type_problems(metadata: Mapping[str, Any], tensors: Mapping[str, GgufTensor]) -> list[str]:
    """Whether the file type, which chooses the limits, is the matrices'. A block type may fall back to others by width."""
    claimed = next((row for row in FILE_TYPES.values() if row.number == metadata.get("general.file_type")), None)
    stored = sorted({tensor.dtype for tensor in tensors.values() if len(tensor.shape) > 1})
    if claimed is None or not stored:
        return []
    blocks = any(dtype not in PLAIN for dtype in stored)
    if blocks == claimed.quantised and (blocks or claimed.base in stored):
        return []
    return [f"general.file_type says {claimed.name}, the tensors are {', '.join(stored)}"]


def _problems(metadata: Mapping[str, Any], tensors: Mapping[str, GgufTensor]) -> list[str]:
    """What keeps llama.cpp from loading the file, or from meaning what it says, beside the rotary keys."""
    problems, arch = [], metadata["general.architecture"]
    tokens = metadata.get("tokenizer.ggml.tokens")
    embedding = tensors.get("token_embd.weight")
    if tokens is None:
        problems.append("tokenizer.ggml.tokens is missing: the file has no vocabulary")
    elif embedding is not None and len(tokens) != embedding.shape[0]:
        problems.append(f"tokenizer.ggml.tokens has {len(tokens)} entries, token_embd.weight {embedding.shape[0]} rows")
    kinds = metadata.get("tokenizer.ggml.token_type")
    if tokens is not None and isinstance(kinds, list) and len(kinds) != len(tokens):
        problems.append(f"tokenizer.ggml.token_type has {len(kinds)} entries, tokenizer.ggml.tokens {len(tokens)}")
    problems += _type_problems(metadata, tensors)
    if metadata.get(f"{arch}.expert_count"):
        problems.append(f"{arch}.expert_count is {metadata[f'{arch}.expert_count']}; ropeconv knows dense models only")
    epsilons = [value for key, value in metadata.items() if key.endswith("_epsilon")]
    problems += [f"a norm's epsilon is {value}; llama.cpp aborts on it" for value in epsilons if not value >= 0]
    for name, tensor in tensors.items():
        wants_f32 = len(tensor.shape) == 1 or name in ROPE_TABLES
        if wants_f32 and tensor.dtype != "F32":
            problems.append(f"tensor {name} is {tensor.dtype}; llama.cpp computes with it in F32")
    return problems
