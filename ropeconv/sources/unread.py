"""The files with weights in a checkpoint's folder that are not the checkpoint: left out by name, or
a reason to refuse the folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path

from ropeconv.errors import CheckpointError

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# weights that LongLoRA trains whole, under the base model's own names
TRAINED_WHOLE = "trainable_params.bin"
HOLDS_WEIGHTS = frozenset(
    {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".npz", ".onnx"}
)
# of a training run: optimizers, schedulers, arguments, random numbers
TRAINING = re.compile(
    r"(training_args|optimizer.*|scheduler|scaler|rng_state.*|random_states.*)\.(bin|pt|pth)"
)
MODEL = re.compile(r"(pytorch_)?model(-\d{5}-of-\d{5})?\.(bin|safetensors)")
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.\w+)")


def is_adapter(folder: Path) -> bool:
    """Whether the folder is an adapter, as peft saves it.

    CheckpointError where one half of an adapter lies in the folder.
    """
    return is_adapter_among(lambda name: (folder / name).exists(), where=folder)


def is_adapter_among(has: Callable[[str], bool], *, where: object) -> bool:
    """`is_adapter` of a place of which `has` tells whether a file is there."""
    weights = [name for name in ADAPTER_WEIGHTS if has(name)]
    if not has(ADAPTER_CONFIG):
        if weights:
            raise CheckpointError(
                f"{where}: has {weights[0]} without {ADAPTER_CONFIG}, which says how it is "
                f"merged; add that file, or remove {weights[0]}"
            )
        return False
    if not weights and has(CONFIG):
        raise CheckpointError(
            f"{where}: has {ADAPTER_CONFIG}, for which transformers loads the base that it names "
            f"and not this folder; remove it where it is stale"
        )
    if not weights:
        raise CheckpointError(
            f"{where}: has {ADAPTER_CONFIG} without {ADAPTER_WEIGHTS[0]}; is the download complete?"
        )
    return True


def unread_files(folder: Path, read: Collection[str]) -> tuple[str, ...]:
    """Names of the files with weights beside those in `read`: the same weights in another format,
    or what transformers would not read either.

    CheckpointError for one that may belong to what is read: an adapter beside a model, or a shard
    of no index.
    """
    return unread_among([path.name for path in folder.iterdir()], read, where=folder)


def unread_among(
    names: Collection[str], read: Collection[str], *, where: object
) -> tuple[str, ...]:
    """`unread_files` of a place that holds files of these names."""
    found = sorted(
        name
        for name in names
        if Path(name).suffix in HOLDS_WEIGHTS and name not in read and not TRAINING.fullmatch(name)
    )
    adapter = [name for name in (*found, *read) if name in ADAPTER_WEIGHTS]
    model = [name for name in (*found, *read) if MODEL.fullmatch(name)]
    if adapter and model:
        raise CheckpointError(
            f"{where}: holds both a model ({model[0]}) and an adapter ({adapter[0]}), whose sum "
            f"is meant or not; move one of the two, with its config, into a folder of its own"
        )
    for name in found:
        shard = SHARD.fullmatch(name)
        if shard is not None and any(_same_series(shard, other) for other in read):
            raise CheckpointError(
                f"{where}: {name} belongs to no shard index here; remove it where it is stale, or "
                f"download the index again"
            )
    return tuple(found)


def _same_series(shard: re.Match[str], other: str) -> bool:
    """Whether `other` could be a shard of the same checkpoint, or all of it in one file."""
    found = SHARD.fullmatch(other)
    own = (Path(other).stem, Path(other).suffix) if found is None else found.groups()
    return own == shard.groups()
