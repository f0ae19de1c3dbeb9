"""Lazy tensors over `torch.save` archives. See `ropeconv.model.Tensor` for the contract."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.errors import CheckpointError
from ropeconv.kit.float_types import FLOATS, numpy_dtype
from ropeconv.kit.foreign import first_line
from ropeconv.model import Rows, Tensor, row_count

# of quantised weights: name in safetensors -> in torch
CODES = {
    "I8": "int8",
    "U8": "uint8",
    "I32": "int32",
    "U32": "uint32",
    "I64": "int64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


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

        part = self.value.reshape(row_count(self.shape), *self.shape[1:])[start:stop].contiguous()
        if self.dtype != "BF16":
            rows: Rows = part.numpy()
            return rows
        bits: Rows = part.view(torch.int16).numpy()  # torch hands no bfloat16 to NumPy
        return bits.view(numpy_dtype("BF16"))

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, row bytes) as stored."""
        import torch

        part = self.value.reshape(row_count(self.shape), -1)[start:stop].contiguous()
        raw: NDArray[np.uint8] = part.view(torch.uint8).numpy()
        return raw


def open_torch(path: Path) -> dict[str, Tensor]:
    """Tensors of one `pytorch_model*.bin`; weights only: a file that holds code is refused, never
    run.
    """
    import torch

    names = {getattr(torch, dtype): name for name, dtype in {**FLOATS, **CODES}.items()}
    try:
        state = _torch_load(path)
    except Exception as error:  # a pickle's bytes are instructions, which fail in every way
        raise CheckpointError(
            f"{path}: not a weights-only PyTorch archive ({first_line(error)}); use safetensors"
        ) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(v, torch.Tensor) for v in state.values()
    ):
        raise CheckpointError(
            f"{path}: holds something other than a dict of tensors; use safetensors"
        )
    return {
        name: TorchTensor(name, path, tuple(t.shape), names.get(t.dtype, str(t.dtype)), t.detach())
        for name, t in state.items()
    }


def _torch_load(path: Path) -> Any:
    import torch

    with warnings.catch_warnings():  # torch warns of what it then refuses
        warnings.simplefilter("ignore")
        # the format before torch 1.6 is no zip archive and cannot be mapped
        return torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
