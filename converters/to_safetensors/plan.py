"""What will be written, decided before anything is: every tensor's type and shard, or the source's
files as they are.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from ropeconv.config.bundles import as_stored
from ropeconv.errors import CannotExpress, OutputError, unknown_name
from ropeconv.kit.float_types import BYTES, FLOATS
from ropeconv.model import Model, Tensor

SHARD = 5 * 10**9  # bytes of tensors a file, as transformers writes them
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class ShardTensor:
    """One tensor to write under its Hugging Face name."""

    name: str
    tensor: Tensor
    type: str

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return prod(self.tensor.shape) * BYTES[self.type]


@dataclass(frozen=True)
class Shard:
    """One file: its name, header, tensors with their byte offsets in the file, size."""

    name: str
    header: bytes
    tensors: tuple[tuple[ShardTensor, int], ...]
    size: int


def parse_dtype(name: str | None) -> str | None:
    """F32, F16 or BF16, in any case and in torch's names too."""
    if name is None:
        return None
    known = {key.lower(): key for key in FLOATS} | {torch: key for key, torch in FLOATS.items()}
    if name.lower() not in known:
        raise CannotExpress(unknown_name("dtype", name, [*FLOATS, *FLOATS.values()]))
    return known[name.lower()]


def kept_files(model: Model, *, dtype: str | None, max_shard_size: int | None) -> list[Path]:
    """The source's weight files, when they can serve as they are: no cast, no other shards, no
    other names, nothing left out; else none.
    """
    checkpoint = model.checkpoint
    if checkpoint.format != "safetensors" or checkpoint.left_out:
        return []
    tensors = as_stored(checkpoint.tensors, model.stack)
    if not all(_as_stored(name, tensor, dtype) for name, tensor in tensors.items()):
        return []
    paths = sorted({Path(str(getattr(t, "path"))) for t in tensors.values()})  # noqa: B009 - a field of that format's tensors
    if max_shard_size is not None and any(path.stat().st_size > max_shard_size for path in paths):
        return []
    index = checkpoint.path / INDEX
    return [*paths, index] if index.is_file() else paths


def _as_stored(name: str, tensor: Tensor, dtype: str | None) -> bool:
    """Whether the file has the tensor under this name and in this type."""
    return getattr(tensor, "name", name) == name and dtype in (None, tensor.dtype)


def plan(model: Model, *, dtype: str | None) -> list[ShardTensor]:
    """Every weight, in the model's order; block types become F32 unless `dtype` says otherwise."""
    tensors = as_stored({name: model.tensor(name) for name in model.weights}, model.stack)
    return [
        ShardTensor(name, tensor, dtype or _own_type(tensor)) for name, tensor in tensors.items()
    ]


def _own_type(tensor: Tensor) -> str:
    return tensor.dtype if tensor.dtype in BYTES else "F32"


def lay_out(tensors: Sequence[ShardTensor], *, max_shard_size: int | None) -> list[Shard]:
    """Shards of at most `max_shard_size` bytes of tensors (one tensor may exceed it)."""
    groups: list[list[ShardTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if groups[-1] and size + tensor.nbytes > (max_shard_size or SHARD):
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.nbytes
    if len(groups) == 1:
        return [_shard("model.safetensors", groups[0])]
    if len(groups) > 99_999:
        raise OutputError(f"--max-shard-size would make {len(groups)} files; give a larger size")
    return [
        _shard(f"model-{n:05d}-of-{len(groups):05d}.safetensors", group)
        for n, group in enumerate(groups, 1)
    ]


def _shard(name: str, tensors: Sequence[ShardTensor]) -> Shard:
    """File: u64 header length, JSON header {name: {dtype, shape, data_offsets}}, data (safetensors
    README, "Format").
    """
    ordered = sorted(
        tensors, key=lambda tensor: -BYTES[tensor.type]
    )  # keeps every tensor aligned to its own type
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts = []
    end = 0
    for tensor in ordered:
        starts.append(end)
        end += tensor.nbytes
        entries[tensor.name] = {
            "dtype": tensor.type,
            "shape": list(tensor.tensor.shape),
            "data_offsets": [starts[-1], end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = struct.pack("<Q", len(text)) + text
    places = tuple(
        (tensor, len(header) + start) for tensor, start in zip(ordered, starts, strict=True)
    )
    return Shard(name, header, places, len(header) + end)


def shard_index(shards: Sequence[Shard]) -> bytes:
    """`model.safetensors.index.json`: which tensor is in which file."""
    weight_map = {tensor.name: shard.name for shard in shards for tensor, _ in shard.tensors}
    total = sum(tensor.nbytes for shard in shards for tensor, _ in shard.tensors)
    return (
        json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2).encode()
        + b"\n"
    )
