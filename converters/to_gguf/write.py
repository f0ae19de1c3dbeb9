"""Model in, GGUF files out: every decision and refusal first, then the bytes."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from converters.to_gguf.archs import find_arch
from converters.to_gguf.archs._arch import Arch
from converters.to_gguf.carry import Encoding, encode
from converters.to_gguf.file.container import RawKey
from converters.to_gguf.file.keys import KeyValue, string, uint32
from converters.to_gguf.file.metadata import (
    PROVENANCE,
    QUANTIZATION_VERSION,
    hyperparameters,
    provenance_key,
)
from converters.to_gguf.file.modelfile import modelfile, modelfile_path
from converters.to_gguf.file.naming import Naming, describe
from converters.to_gguf.file.parts import Part, lay_out, write
from converters.to_gguf.file.splits import SPLIT_NAME, check_outputs, read_headers
from converters.to_gguf.matrix.apply import read_weighing, refuse_unweighed
from converters.to_gguf.options import Options
from converters.to_gguf.plan import plan
from converters.to_gguf.quant.again import describe_again, refuse_again
from converters.to_gguf.quant.chosen import NOTHING_CHOSEN, Chosen, read_chosen
from converters.to_gguf.quant.keep import KEEP, kept, words
from converters.to_gguf.quant.types import FILE_TYPES, FileType, file_type
from converters.to_gguf.read.tensors import raw_keys
from converters.to_gguf.rope.loader import TABLES
from converters.to_gguf.tokenizer.keys import convert_tokenizer
from ropeconv.card.text import Written, card_path, make_card
from ropeconv.errors import ConfigError, OutputError
from ropeconv.kit.replacing.file_set import is_unfinished
from ropeconv.model import Model
from ropeconv.target import Emitted, Progress

LIBRARY = "gguf"  # on the hub


def emit(
    model: Model,
    out: Path | None,
    *,
    options: Options,
    progress: Progress | None = None,
) -> Emitted:
    """Write `model` as GGUF.

    out: file or folder; None = the current folder. Raises CannotExpress, TokenizerError or
    OutputError before any file is opened for writing; CheckpointError for a weight that is not a
    number, with nothing left behind.
    """
    encoding = encode(model, options.bake, options.host)
    keep = _keeps_codes(model, options)
    model, kind = kept(model) if keep else (model, _file_type(model, options))
    naming, general = describe(model, name=options.name)
    weighing = read_weighing(options.imatrix, None if keep else kind)
    chosen = _chosen(options, None if keep else kind)
    tensors = plan(model, encoding, kind, keep=keep, weighed=weighing is not None, chosen=chosen)
    if weighing is not None:
        tensors = weighing.weigh(tensors)
    refuse_unweighed(tensors, kind, weighing)
    changes = [(tensor.tensor.dtype, tensor.type) for tensor in tensors]
    if kind is not None:
        refuse_again(changes, kind, allowed=options.allow_requantize)
    type_name = _source_type(model) if kind is None else kind.name
    path = _resolve(out, naming, type_name)
    stated = [*general, *_type_keys(model, kind), *(weighing.keys if weighing else [])]
    keys, limits = _keys(model, encoding, stated, options)
    keys.append(provenance_key(model, path, kept=keep))
    parts = lay_out(path, keys, tensors, split=options.split)
    names = [part.path for part in parts]
    beside = {}
    if options.modelfile:
        beside[modelfile_path(names)] = modelfile(names[0], context=model.main_rope.context)
    told = words([model.tensor(name) for name in model.weights])
    if options.card:
        made = Written(names[0], "GGUF", type_name, encoding.carried, LIBRARY, names[0].stem, told)
        beside[card_path(names[0])] = make_card(model, made)
    outputs = [*names, *beside]

    def check() -> list[Path]:
        source = model.checkpoint.path
        return check_outputs(path, outputs, source=source, force=options.force)

    if options.dry_run or not is_unfinished(path):
        check()
    if not options.dry_run:
        write(path, parts, check=check, texts=beside, threads=options.threads, progress=progress)
    return Emitted(
        files=tuple(outputs),
        size=sum(part.size for part in parts),
        carried=encoding.carried,
        type=type_name,
        details=_details(parts, encoding)
        | {
            "tokenizer_limits": limits,
            "requantised": describe_again(changes),
            "kept": told,
            "weighed": "" if weighing is None else weighing.words(tensors),
        },
    )


def _file_type(model: Model, options: Options) -> FileType | None:
    """None where a GGUF source's own types stay."""
    wanted = options.type or (KEEP if model.checkpoint.metadata else "F16")
    return None if wanted.lower() == KEEP else file_type(wanted)


def _chosen(options: Options, kind: FileType | None) -> Chosen:
    """The user's types of single tensors; ConfigError where nothing is rounded to blocks."""
    output, embedding = options.output_tensor_type, options.token_embedding_type
    chosen = read_chosen(options.tensor_type, output=output, embedding=embedding)
    if chosen != NOTHING_CHOSEN and (kind is None or not kind.quantised):
        raise ConfigError(
            "--tensor-type, --output-tensor-type and --token-embedding-type choose other types "
            "than that of a file in blocks; give a --type like Q4_K_M too"
        )
    return chosen


def _keeps_codes(model: Model, options: Options) -> bool:
    """Whether codes that are in no ggml block yet are to stay what they are."""
    return (options.type or "").lower() == KEEP and not model.checkpoint.metadata


def _type_keys(model: Model, kind: FileType | None) -> list[KeyValue]:
    """The keys that say how the tensors are stored, where a GGUF source does not."""
    if kind is None:
        return []
    version, found = "general.quantization_version", model.checkpoint.metadata
    lacks = found and kind.quantised and version not in found
    stated = [uint32(version, QUANTIZATION_VERSION)] if lacks else []
    return [uint32("general.file_type", kind.number), *stated]


def _source_type(model: Model) -> str:
    number = model.checkpoint.metadata.get("general.file_type")
    return next((row.name for row in FILE_TYPES.values() if row.number == number), "as-is")


def _resolve(out: Path | None, naming: Naming, type_name: str) -> Path:
    path = Path() if out is None else out
    if out is None or path.is_dir():
        path = path / naming.file_name(type_name)
    if path.suffix != ".gguf":
        raise OutputError(
            f"{path}: a GGUF file's name ends in .gguf; "
            f"give such a name or an existing folder with -o"
        )
    part = SPLIT_NAME.fullmatch(path.name)
    if part is not None:
        raise OutputError(
            f"{path}: is the name of one part of a split model; "
            f"give {part[1]}.gguf and --split-max-size"
        )
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent}: no such folder; create it or choose another with -o")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path.parent}: the folder is not writable; choose another with -o")
    return path


def _keys(
    model: Model, encoding: Encoding, general: Sequence[KeyValue], options: Options
) -> tuple[list[KeyValue | RawKey], list[str]]:
    """(every key in file order but provenance, where llama.cpp's tokenizer differs).

    general: the keys that describe the file, its type among them.
    """
    checkpoint = model.checkpoint
    if checkpoint.metadata:
        kept = _kept_keys(model, encoding, {key.key for key in general})
        return [*kept, *encoding.keys, *general], []
    tokens, limits = convert_tokenizer(
        {name: read() for name, read in checkpoint.files.items()},
        vocab_size=model.stack.vocab_size,
        config=checkpoint.config,
        pre=options.pre,
        name=next((str(key.value) for key in general if key.key == "general.name"), ""),
    )
    keys: list[KeyValue | RawKey] = [
        string("general.architecture", encoding.arch.name),
        string("general.type", "model"),
        *(key for key in general if key.key != "general.architecture"),
        uint32("general.quantization_version", QUANTIZATION_VERSION),
        *hyperparameters(model, encoding.arch),
        *encoding.keys,
        *tokens,
    ]
    return keys, limits


def _kept_keys(model: Model, encoding: Encoding, replaced: set[str]) -> list[KeyValue | RawKey]:
    """A GGUF source's keys byte for byte, but for the rotary ones.

    Where the architecture changes, under the new one's name, and as that one needs them.
    """
    old, new = find_arch(model.checkpoint.metadata).name, encoding.arch.name
    rotary = (f"{old}.rope.", f"{old}.context_length")
    kept: list[KeyValue | RawKey] = []
    source = raw_keys(read_headers(model.checkpoint.path))
    renamed = _Renamed(model, encoding.arch)
    for name, key in source.items():
        if name.startswith(rotary) or name in replaced or name in (PROVENANCE, "general.alignment"):
            continue
        if old == new:
            kept.append(key)
        elif name == "general.architecture":
            kept.append(string(name, new))
        else:
            kept += renamed.key(key.keyvalue)
    return kept if old == new else [*kept, *renamed.missing(source)]


class _Renamed:
    """A source's keys as another architecture needs them."""

    def __init__(self, model: Model, arch: Arch) -> None:
        self._old = find_arch(model.checkpoint.metadata)
        self._new = arch
        self._were = {key.key: key.value for key in hyperparameters(model, self._old)}
        self._are = {key.key: key for key in hyperparameters(model, arch)}

    def _name(self, name: str) -> str:
        old = f"{self._old.name}."
        return f"{self._new.name}.{name.removeprefix(old)}" if name.startswith(old) else name

    def key(self, key: KeyValue) -> list[KeyValue]:
        """The key under its new name; the new one's own where it says another value there; nothing
        where it has no such key.
        """
        name = self._name(key.key)
        wanted = self._are.get(name)
        if wanted is None:
            return [] if key.key in self._were else [replace(key, key=name)]
        same = wanted.value == self._were.get(key.key, key.value)
        return [replace(key, key=name) if same else wanted]

    def missing(self, source: Collection[str]) -> list[KeyValue]:
        """Keys that the source has not: but those that say what loaders assume where it is silent
        too.
        """
        there = {self._name(name) for name in source}
        silent = {self._name(name): value for name, value in self._were.items()}
        return [
            key
            for name, key in self._are.items()
            if name not in there and silent.get(name) != key.value
        ]


def _details(parts: Sequence[Part], encoding: Encoding) -> dict[str, Any]:
    bytes_by_type: dict[str, int] = {}
    for part in parts:
        ends = [*(offset for _, offset in part.tensors[1:]), part.size]
        for (tensor, offset), end in zip(part.tensors, ends, strict=True):
            bytes_by_type[tensor.type] = bytes_by_type.get(tensor.type, 0) + end - offset
    return {
        "architecture": encoding.arch.name,
        "tensors": sum(len(part.tensors) for part in parts),
        "bytes_by_type": bytes_by_type,
        "tables": [name for name in TABLES if name in encoding.tables],
        "keys": {key.key: key.value for key in encoding.keys},
    }
