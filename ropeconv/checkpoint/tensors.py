"""Lazy tensors over safetensors files and PyTorch archives. See `ropeconv.model.Tensor` for the contract."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ropeconv.errors import CheckpointError
from ropeconv.model import Rows, Tensor

# Storage types that a decoder's weights are published in; anything else (int8, float8, packed 4 bit) is another format.
FLOATS = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}


@dataclass(frozen=True)
class SafetensorsTensor:
    """Rows of one tensor in a safetensors file, as views of the file's mapping. `data`: all its bytes."""

    name: str
    path: Path
    shape: tuple[int, ...]
    dtype: str
    data: NDArray[np.uint8]

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) numbers as stored; CheckpointError for a type that ropeconv does not read."""
        if self.dtype not in FLOATS:
            raise CheckpointError(f"tensor {self.name} is stored as {self.dtype}; ropeconv reads {', '.join(FLOATS)}")
        numbers: Rows = self.raw_rows(start, stop).view(FLOATS[self.dtype])
        return numbers.reshape(stop - start, *self.shape[1:])

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, row bytes) as stored."""
        return self.data.reshape(self.shape[0], -1)[start:stop]


@dataclass(frozen=True)
class TorchTensor:
    """Rows of one tensor of a `torch.save` archive, mapped from the file."""

    name: str
    path: Path
    shape: tuple[int, ...]
    dtype: str
    value: Any

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) numbers as stored."""
        import torch

        part = self.value[start:stop].contiguous()
        if self.dtype != "BF16":
            rows: Rows = part.numpy()
            return rows
        bits: Rows = part.view(torch.int16).numpy()  # torch hands no bfloat16 to NumPy
        return bits.view(ml_dtypes.bfloat16)

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, row bytes) as stored."""
        rows = np.ascontiguousarray(self.rows(start, stop))
        return rows.reshape(stop - start, -1).view(np.uint8)


def open_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of one safetensors file; only its header is read. CheckpointError when the file is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np"):  # checks the header against the file's size
            pass
        return _map_safetensors(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}); download it again") from error


def _map_safetensors(path: Path) -> dict[str, Tensor]:
    """The library copies every slice that it gives; a mapping lets the cast read straight from the page cache.

    File: u64 header length, JSON header {name: {dtype, shape, data_offsets}}, data (safetensors README, "Format").
    """
    mapped: NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
    start = 8 + int(mapped[:8].view("<u8")[0])
    header = json.loads(mapped[8:start].tobytes())
    header.pop("__metadata__", None)
    found: dict[str, Tensor] = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        part = mapped[start + first : start + last]
        found[name] = SafetensorsTensor(name, path, tuple(entry["shape"]), entry["dtype"], part)
    return found


def open_torch(path: Path) -> dict[str, Tensor]:
    """Tensors of one `pytorch_model*.bin`; weights only: a file that holds code is refused, never run."""
    import pickle

    import torch

    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    try:
        state = _torch_load(path)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: not a weights-only PyTorch archive ({reason}); use safetensors") from error
    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise CheckpointError(f"{path}: holds something other than a dict of tensors; use safetensors")
    return {
        name: TorchTensor(name, path, tuple(t.shape), names.get(t.dtype, str(t.dtype)), t.detach()) for name, t in state.items()
    }


def _torch_load(path: Path) -> Any:
    import torch

    with warnings.catch_warnings():  # torch warns of what it then refuses
        warnings.simplefilter("ignore")
        # the format before torch 1.6 is no zip archive and cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def shard_names(index: Path) -> list[str]:
    """File names in a `*.index.json` weight map; every one a plain name inside the folder."""
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        names = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise CheckpointError(f"{index}: not a shard index (no readable weight_map); download it again") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name in {"", ".", ".."}:
            raise CheckpointError(f"{index}: shard {name!r} is not a file name inside the folder; mend the index")
    return names
