"""A finished GGUF file, opened for the proof and for the doctor."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from converters.to_gguf import run
from converters.to_gguf.archs import find_arch
from converters.to_gguf.archs._arch import Stated
from converters.to_gguf.file.metadata import read_provenance, says_kept
from converters.to_gguf.quant.keep import judged_as_kept
from converters.to_gguf.quant.types import FILE_TYPES, PLAIN
from converters.to_gguf.read.accounts import unexpected
from converters.to_gguf.read.as_run import branches_as_run, logits_as_run, text_logits
from converters.to_gguf.read.checkpoint import open_checkpoint
from converters.to_gguf.read.common_keys import unexpected_common
from converters.to_gguf.read.probes import make_probes
from converters.to_gguf.read.problems import problems
from converters.to_gguf.read.tensors import GgufTensor, open_tensors, read_metadata
from converters.to_gguf.read.twin import Twin
from converters.to_gguf.rope.rope_parameters import narrowed, rotary_size
from converters.to_gguf.rope.run_rope import frequencies
from converters.to_gguf.rope.settings import rope_problems
from converters.to_gguf.tokenizer.special_tokens import ENDS
from converters.to_gguf.tokenizer.token_table import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)
from ropeconv import registry
from ropeconv.artefact import Artefact, Raw
from ropeconv.model import Checkpoint, Model
from ropeconv.rope.spec import Frequencies

WEIGHED = "quantize.imatrix."
MERGES = "tokenizer.ggml.merges"
KINDS = {
    NORMAL: "normal",
    UNKNOWN: "unknown",
    CONTROL: "control",
    USER_DEFINED: "user",
    UNUSED: "unused",
    BYTE: "byte",
}


def open_artefact(path: Path) -> Artefact:
    """The file as an Artefact; nothing is run yet.

    CheckpointError when it is no readable GGUF file.
    """
    checkpoint = open_checkpoint(path)
    path = checkpoint.path
    metadata, tensors = checkpoint.metadata, open_tensors(path)
    stated = Stated(find_arch(metadata), metadata, tensors.keys())
    arch = stated.arch.name
    wrong = [*rope_problems(metadata, tensors), *problems(metadata, tensors)]
    solved = {} if wrong else _rotary_frequencies(stated, tensors, checkpoint)
    context = int(metadata[f"{arch}.context_length"])
    trained = int(metadata.get(f"{arch}.rope.scaling.original_context_length", context))
    blocks = any(tensor.dtype not in PLAIN for tensor in tensors.values())
    return Artefact(
        path=path,
        type=_type_name(metadata),
        provenance=read_provenance(metadata),
        checkpoint=judged_as_kept(checkpoint) if says_kept(metadata) else checkpoint,
        original_context=trained,
        context=context,
        original_context_counts=_counts(metadata, arch),
        frequencies=solved,
        problems=wrong,
        logits=partial(text_logits, path),
        tokenize=partial(run.tokenize, path),
        vocabulary=partial(run.vocabulary, path),
        special_ids=_special_ids(metadata),
        probes=make_probes(path, trained=trained, context=context, switch=_switch(solved)),
        token_kinds=partial(_token_kinds, metadata),
        ends=partial(_ends, path, metadata),
        chat_templates=_chat_templates(metadata),
        merges=partial(list, metadata[MERGES]) if MERGES in metadata else None,
        unexpected=partial(_unexpected, metadata),
        twin=Twin(path) if blocks else None,
        weighed=any(key.startswith(WEIGHED) for key in metadata),
        as_run=partial(logits_as_run, path, metadata),
        branches=partial(branches_as_run, path, metadata),
        files=(path,),
    )


def open_raw(path: Path) -> Raw:
    """The file's keys and tensors as they are, and what llama.cpp makes of the rotary ones."""
    metadata, tensors = read_metadata(path), open_tensors(path)
    wrong = rope_problems(metadata, tensors)
    return Raw(metadata, tensors, wrong, partial(_frequencies, metadata, tensors))


def _frequencies(
    metadata: Mapping[str, Any], tensors: Mapping[str, GgufTensor]
) -> dict[str, Frequencies | None]:
    return dict(frequencies(metadata, tensors))


def _rotary_frequencies(
    stated: Stated, tensors: Mapping[str, GgufTensor], checkpoint: Checkpoint
) -> dict[str, Frequencies | None]:
    """Of the pairs that rotate in the family, where the graph turns whole heads."""
    family = registry.architectures()[checkpoint.config["model_type"]]
    pairs = rotary_size(stated, tensors, family.rope) // 2
    found = _frequencies(stated.metadata, tensors)
    return {kind: one and narrowed(one, stated, pairs) for kind, one in found.items()}


def _unexpected(metadata: Mapping[str, Any], model: Model) -> list[str]:
    return [*unexpected(metadata, model), *unexpected_common(metadata, model)]


def _switch(solved: Mapping[str, Frequencies | None]) -> int | None:
    """Up to how many allocated tokens LongRoPE has the short factors."""
    ends = [numbers.switch_context for numbers in solved.values() if numbers is not None]
    return next((end for end in ends if end is not None), None)


def _type_name(metadata: Mapping[str, Any]) -> str:
    number = metadata.get("general.file_type")
    known = (row.name for row in FILE_TYPES.values() if row.number == number)
    return next(known, f"file type {number}")


def _counts(metadata: Mapping[str, Any], arch: str) -> bool:
    """Whether the file says the trained length, or llama.cpp takes context_length for it.

    It does for YaRN's ramp and for LongRoPE's switch. llama.cpp's own converter leaves the key out
    of files whose table says it all (Llama 3).
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
    """The file's own word for every token, before llama.cpp mends what looks wrong to it.

    It takes "normal" for silence.
    """
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    types = metadata.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    return [KINDS.get(number, f"type {number}") for number in types]


def _ends(path: Path, metadata: Mapping[str, Any]) -> dict[int, bool]:
    """Where llama.cpp stops -> whether the file says so.

    A text that it always takes for an end does not count as said.
    """
    tokens, ids = metadata.get("tokenizer.ggml.tokens", []), _special_ids(metadata)
    # eos is compared by its id
    stated = {ids[name] for name in ("eot", "eom") if name in ids}
    return {i: i in stated and tokens[i] not in ENDS for i in run.ends(path)}


def _chat_templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    head = "tokenizer.chat_template"
    named = {
        key.removeprefix(f"{head}."): str(text)
        for key, text in metadata.items()
        if key.startswith(f"{head}.")
    }
    return named | ({"default": str(metadata[head])} if head in metadata else {})
