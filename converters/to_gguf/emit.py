"""Model in, GGUF files out: every decision and refusal first, then the bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.to_gguf.container import RawKey
from converters.to_gguf.families import ROPE_TABLES
from converters.to_gguf.keys import KeyValue
from converters.to_gguf.metadata import (
    PROVENANCE,
    QUANTIZATION_VERSION,
    STRING,
    UINT32,
    Naming,
    describe,
    hyperparameters,
    provenance_key,
)
from converters.to_gguf.plan import Planned, plan
from converters.to_gguf.scaling import Encoding, encode
from converters.to_gguf.source import find_layout, raw_keys
from converters.to_gguf.splits import SPLIT_NAME, check_outputs, read_headers
from converters.to_gguf.tokenizer import convert_tokenizer
from converters.to_gguf.types import FILE_TYPES, FileType, file_type
from converters.to_gguf.write import Part, lay_out, write
from ropeconv.errors import OutputError
from ropeconv.model import Model
from ropeconv.target import Emitted, Progress


@dataclass(frozen=True)
class Options:
    """What the user chose.

    type None: F16, or a GGUF source's own types. split: bytes of tensors a file, at most. name: replaces general.name.
    """

    type: str | None = None
    bake: str = "auto"
    split: int | None = None
    force: bool = False
    dry_run: bool = False
    threads: int = 0
    pre: str | None = None
    name: str | None = None


def emit(
    model: Model, out: Path | None, *, huggingface: Mapping[str, Any], options: Options, progress: Progress | None = None
) -> Emitted:
    """Write `model` as GGUF.

    out: file or folder; None = the current folder. huggingface: config keys for the reference, kept as provenance.
    Raises CannotExpress, TokenizerError or OutputError before any file is opened for writing; CheckpointError for a
    weight that is not a number, with nothing left behind.
    """
    encoding = encode(model, options.bake)
    kind = _file_type(model, options)
    naming, general = describe(model, name=options.name)
    tensors = plan(model, encoding, kind)
    type_name = kind.name if kind is not None else _source_type(model)
    path = _resolve(out, naming, type_name)
    keys, limits = _keys(model, encoding, kind, general, options, path, huggingface)
    parts = lay_out(path, keys, tensors, split=options.split)
    stale = check_outputs(path, [part.path for part in parts], source=model.checkpoint.path, force=options.force)
    if not options.dry_run:
        write(parts, stale=stale, threads=options.threads or os.cpu_count() or 1, progress=progress)
    return Emitted(
        files=tuple(part.path for part in parts),
        size=sum(part.size for part in parts),
        carried=encoding.carried,
        type=type_name,
        details=_details(parts, encoding, tensors) | {"tokenizer_limits": limits},
    )


def _file_type(model: Model, options: Options) -> FileType | None:
    if options.type is not None:
        return file_type(options.type)
    return None if model.checkpoint.metadata else file_type("F16")


def _source_type(model: Model) -> str:
    number = model.checkpoint.metadata.get("general.file_type")
    return next((row.name for row in FILE_TYPES.values() if row.number == number), "as-is")


def _resolve(out: Path | None, naming: Naming, type_name: str) -> Path:
    path = Path(out) if out is not None else Path()
    if out is None or path.is_dir():
        path = path / naming.file_name(type_name)
    if path.suffix != ".gguf":
        raise OutputError(f"{path}: a GGUF file's name ends in .gguf; give such a name or an existing folder with -o")
    part = SPLIT_NAME.fullmatch(path.name)
    if part is not None:
        raise OutputError(f"{path}: is the name of one part of a split model; give {part[1]}.gguf and --split-max-size")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent}: no such folder; create it or choose another with -o")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path.parent}: the folder is not writable; choose another with -o")
    return path


def _keys(
    model: Model,
    encoding: Encoding,
    kind: FileType | None,
    general: list[KeyValue],
    options: Options,
    path: Path,
    huggingface: Mapping[str, Any],
) -> tuple[list[KeyValue | RawKey], list[str]]:
    """(every key in file order, where llama.cpp's tokenizer differs from the source's)."""
    arch = encoding.layout.arch
    provenance = provenance_key(model, huggingface, path)
    typed = [] if kind is None else [KeyValue("general.file_type", kind.number, UINT32)]
    if model.checkpoint.metadata:
        own = [*general, *typed]
        return [*_kept_keys(model, encoding, {key.key for key in own}), *encoding.keys, *own, provenance], []
    files = {name: read() for name, read in model.checkpoint.files.items()}
    name = next((str(key.value) for key in general if key.key == "general.name"), "")
    config, vocab_size = model.checkpoint.config, model.dims.vocab_size
    tokens, limits = convert_tokenizer(files, vocab_size=vocab_size, config=config, pre=options.pre, name=name)
    keys: list[KeyValue | RawKey] = [
        KeyValue("general.architecture", arch, STRING),
        KeyValue("general.type", "model", STRING),
        *(key for key in general if key.key != "general.architecture"),
        *typed,
        KeyValue("general.quantization_version", QUANTIZATION_VERSION, UINT32),
        *hyperparameters(model, encoding.layout),
        *encoding.keys,
        *tokens,
        provenance,
    ]
    return keys, limits


def _kept_keys(model: Model, encoding: Encoding, replaced: set[str]) -> list[KeyValue | RawKey]:
    """A GGUF source's keys byte for byte, but for the rotary ones, and under a new architecture's name where it changes."""
    old, new = find_layout(model.checkpoint.metadata).arch, encoding.layout.arch
    rotary = (f"{old}.rope.", f"{old}.context_length")
    kept: list[KeyValue | RawKey] = []
    for name, key in raw_keys(read_headers(model.checkpoint.path)).items():
        if name.startswith(rotary) or name in replaced or name in (PROVENANCE, "general.alignment"):
            continue
        if old == new:
            kept.append(key)
        elif name == "general.architecture":
            kept.append(KeyValue(name, new, STRING))
        else:
            renamed = f"{new}.{name.removeprefix(old + '.')}" if name.startswith(old + ".") else name
            value = key.keyvalue
            kept.append(KeyValue(renamed, value.value, value.type, value.sub_type))
    return kept


def _details(parts: list[Part], encoding: Encoding, tensors: list[Planned]) -> dict[str, Any]:
    bytes_by_type: dict[str, int] = {}
    for part in parts:
        for (tensor, offset), end in zip(part.tensors, [o for _, o in part.tensors[1:]] + [part.size], strict=True):
            bytes_by_type[tensor.type] = bytes_by_type.get(tensor.type, 0) + end - offset
    return {
        "architecture": encoding.layout.arch,
        "tensors": len(tensors),
        "bytes_by_type": bytes_by_type,
        "tables": [name for name in ROPE_TABLES if name in encoding.tables],
        "keys": {key.key: key.value for key in encoding.keys},
    }
