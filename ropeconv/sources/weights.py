"""Which weight files make up a checkpoint, one copy of them, and their tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ropeconv.errors import CheckpointError
from ropeconv.kit.door import check_place, parse_json, read_file
from ropeconv.model import Tensor
from ropeconv.sources.pytorch import open_torch
from ropeconv.sources.safetensors import open_safetensors

Reader = Callable[[Path], dict[str, Tensor]]
WEIGHTS: tuple[tuple[str, str, Reader], ...] = (
    ("safetensors", "model.safetensors", open_safetensors),
    ("pytorch", "pytorch_model.bin", open_torch),
)
INDEX = ".index.json"
LONGEST_NAME = 255  # bytes that a file system takes


@dataclass(frozen=True)
class Weights:
    """One copy of a checkpoint's weights. index: the file that names the shards, where one does."""

    format: str
    names: Sequence[str]
    index: str | None
    reader: Reader


def choose_weights(
    has: Callable[[str], bool], shards: Callable[[str], list[str]], *, where: object
) -> Weights:
    """The copy that is read, out of a folder of which `has` tells whether a file is there.

    shards: an index's name -> the names in it. Safetensors come first. CheckpointError, naming
    `where`, for none, and for two of the same format.
    """
    for form, name, reader in WEIGHTS:
        index = f"{name}{INDEX}"
        if not has(index):
            if has(name):
                return Weights(form, [name], None, reader)
            continue
        names = shards(index)
        if has(name) and name not in names:
            raise CheckpointError(
                f"{where}: holds both {name} and {index}; remove the one that is stale"
            )
        return Weights(form, names, index, reader)
    raise CheckpointError(
        f"{where}: no weights (model.safetensors, model.safetensors.index.json or "
        f"pytorch_model.bin); is the download complete?"
    )


def weights_of(folder: Path) -> Weights:
    """The copy that is read out of a folder."""
    return choose_weights(
        lambda name: (folder / name).exists(),
        lambda name: shard_names(folder / name),
        where=folder,
    )


def read_shards(folder: Path, names: Sequence[str], reader: Reader) -> dict[str, Tensor]:
    """The tensors of all these files by name. CheckpointError for a file that is not there and for
    a name in two.
    """
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
