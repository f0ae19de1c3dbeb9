"""Which files make up a checkpoint: one folder, its weight files, its text files, its
fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from ropeconv import registry
from ropeconv.config.wrapper import refuse_uncovered, text_checkpoint
from ropeconv.errors import CheckpointError
from ropeconv.kit.door import check_place, parse_json, read_file
from ropeconv.model import Checkpoint, Tensor
from ropeconv.sources.adapter import merge_adapter
from ropeconv.sources.adapter_config import AdapterConfig, read_adapter_config
from ropeconv.sources.pytorch import open_torch
from ropeconv.sources.quantised._open import dequantised
from ropeconv.sources.safetensors import open_safetensors, scattered
from ropeconv.sources.unread import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG,
    is_adapter,
    unread_files,
)

# Every text file that belongs to a checkpoint's tokenizer or generation; read only when a converter
# asks.
TEXT_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)
WEIGHTS: tuple[tuple[str, str, Callable[[Path], dict[str, Tensor]]], ...] = (
    ("safetensors", "model.safetensors", open_safetensors),
    ("pytorch", "pytorch_model.bin", open_torch),
)
# weights that LongLoRA trains whole, under the base model's own names
TRAINED_WHOLE = "trainable_params.bin"
LONGEST_NAME = 255  # bytes that a file system takes
ROW_BYTES = 4096  # of a row, in a fingerprint
HUB_PATTERNS = [
    "*.json",
    "*.safetensors",
    "pytorch_model*.bin",
    "adapter_model.bin",
    TRAINED_WHOLE,
    "tokenizer*",
    "*.jinja",
    "additional_chat_templates/*",
    "merges.txt",
]


def open_checkpoint(
    source: str | Path, *, original_context: int | None = None, base: str | Path | None = None
) -> Checkpoint:
    """A folder, a single-file checkpoint of a target that reads its own format (GGUF), a LoRA
    adapter's folder, or a hub id; headers only.

    original_context: the trained length of a single file that does not say it; a folder's config is
    not touched. base: the model under an adapter, where the adapter names no folder. Raises
    CheckpointError with what is missing, damaged or unknown.
    """
    path = Path(source)
    if path.is_file():
        if base is not None:
            raise _no_adapter(path)
        return _open_file(path, original_context=original_context)
    if not path.exists():
        path = _download(str(source))
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
    form, names, tensors = _open_weights(folder)
    whole = Checkpoint(
        path=folder,
        format=form,
        config=config,
        tensors=tensors,
        files=_text_files(folder),
        identify=cache(partial(fingerprint, config, tensors)),
        unread=unread_files(folder, names),
    )
    return text_checkpoint(dequantised(whole))


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
    tensors = _read_shards(folder, names, _open_either)
    merged = merge_adapter(
        under,
        folder=folder,
        config=config,
        tensors=tensors,
        files=_text_files(folder),
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


def _open_weights(folder: Path) -> tuple[str, list[str], dict[str, Tensor]]:
    """(format, files, tensors) of a folder."""
    for form, name, reader in WEIGHTS:
        index = folder / f"{name}.index.json"
        names = shard_names(index) if index.exists() else [name]
        if index.exists() and (folder / name).exists() and name not in names:
            raise CheckpointError(
                f"{folder}: holds both {name} and {index.name}; remove the one that is stale"
            )
        if not index.exists() and not (folder / name).exists():
            continue
        return form, names, _read_shards(folder, names, reader)
    raise CheckpointError(
        f"{folder}: no weights (model.safetensors, model.safetensors.index.json or "
        f"pytorch_model.bin); is the download complete?"
    )


def _read_shards(
    folder: Path, names: list[str], reader: Callable[[Path], dict[str, Tensor]]
) -> dict[str, Tensor]:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: shard {missing[0]} is missing ({len(missing)} of {len(names)}); download it"
        )
    tensors: dict[str, Tensor] = {}
    for name in names:
        check_place(folder / name, inside=folder)
        for key, tensor in reader(folder / name).items():
            if key in tensors:
                raise CheckpointError(
                    f"{folder}: tensor {key} is in more than one shard; remove the stale one"
                )
            tensors[key] = tensor
    return tensors


def _text_files(folder: Path) -> dict[str, Callable[[], bytes]]:
    names = [name for name in TEXT_FILES if (folder / name).exists()]
    names += sorted(
        f"additional_chat_templates/{p.name}"
        for p in folder.glob("additional_chat_templates/*.jinja")
    )
    return {name: partial(read_file, folder / name, inside=folder) for name in names}


def _download(source: str) -> Path:
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise CheckpointError(f"{source}: no such file or folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        # a family that is not covered costs one small file
        first = Path(snapshot_download(source, allow_patterns=[CONFIG]))
        if (first / CONFIG).exists():
            refuse_uncovered(read_json(first / CONFIG, missing="not a checkpoint folder"))
        return Path(snapshot_download(source, allow_patterns=HUB_PATTERNS))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{source}: no such folder, and not to be had from the hub ({type(error).__name__}); "
            f"check the name or the network"
        ) from error


def read_json(path: Path, *, missing: str) -> dict[str, Any]:
    """A JSON object, or a CheckpointError that names the file."""
    try:
        value = parse_json(read_file(path, inside=path.parent))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent}: {missing} (no {path.name})") from error
    except (ValueError, OSError) as error:
        raise CheckpointError(
            f"{path}: not readable as JSON ({error}); download it again"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: a JSON object is expected, not {type(value).__name__}")
    return value


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


def shard_names(index: Path) -> list[str]:
    """File names in a `*.index.json` weight map; every one a plain name inside the folder."""
    try:
        weight_map = parse_json(read_file(index, inside=index.parent))["weight_map"]
        names = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise CheckpointError(
            f"{index}: not a shard index (no readable weight_map); download it again"
        ) from error
    for name in names:
        if Path(name).name != name or name in {"", ".", ".."} or len(name.encode()) > LONGEST_NAME:
            raise CheckpointError(
                f"{index}: shard {name!r} is not a file name inside the folder; mend the index"
            )
    return names
