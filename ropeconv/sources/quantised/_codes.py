"""Numbers and codes of stored tensors as NumPy arrays, a few rows at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ropeconv.kit.float_types import FLOATS, numpy_dtype
from ropeconv.model import Rows, Tensor, row_count
from ropeconv.sources.codes import Groups

# safetensors' names of types -> NumPy's
CODES: Mapping[str, Any] = {
    "I8": np.int8,
    "U8": np.uint8,
    "I32": np.int32,
    "U32": np.uint32,
    "I64": np.int64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}
FLOAT_8 = ("F8_E4M3", "F8_E5M2")
# eight codes of b bits take b bytes, which one of these words holds
CODES_A_WORD = 8


def codes(tensor: Tensor, start: int, stop: int) -> NDArray[Any]:
    """(stop - start, ...) numbers in the type that they are stored in."""
    dtype = numpy_dtype(tensor.dtype) if tensor.dtype in FLOATS else np.dtype(CODES[tensor.dtype])
    rows = np.ascontiguousarray(tensor.raw_rows(start, stop)).view(dtype)
    return rows.reshape(stop - start, *tensor.shape[1:])


def whole(tensor: Tensor) -> NDArray[Any]:
    """All of a small tensor, in its own shape and type."""
    return codes(tensor, 0, row_count(tensor.shape)).reshape(tensor.shape)


def floats(tensor: Tensor, start: int, stop: int) -> NDArray[np.float32]:
    """(stop - start, ...) float32 numbers."""
    stored = codes(tensor, start, stop)
    if tensor.dtype not in FLOAT_8:
        return stored.astype(np.float32)
    every = np.arange(256, dtype=np.uint8).view(CODES[tensor.dtype]).astype(np.float32)
    numbers: NDArray[np.float32] = every[stored.view(np.uint8)]
    return numbers


def scales(tensor: Tensor, start: int, stop: int) -> NDArray[np.float32]:
    """(stop - start, ...) float32 numbers; plain bytes are exponents of two (OCP MX's E8M0)."""
    stored = codes(tensor, start, stop)
    if tensor.dtype == "U8":
        stored = stored.view(CODES["F8_E8M0"])
    return stored.astype(np.float32)


def unpack(packed: NDArray[Any], bits: int, count: int) -> NDArray[np.uint8]:
    """(..., count) codes out of (..., n) words: code i begins at bit i * bits of the little-endian
    stream that the last axis is.
    """
    stream = np.ascontiguousarray(packed).view(np.uint8)
    if bits == 8:
        return stream[..., :count]
    if bits in (2, 4):
        split = np.empty((*stream.shape, 8 // bits), np.uint8)
        for place in range(8 // bits):
            split[..., place] = (stream >> (bits * place)) & (2**bits - 1)
        return split.reshape(*stream.shape[:-1], -1)[..., :count]
    return _unpack_odd(stream, bits)[..., :count]


def _unpack_odd(stream: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Codes that lie across bytes: eight of them from every `bits` bytes."""
    pad = -stream.shape[-1] % bits
    filled = np.pad(stream, [(0, 0)] * (stream.ndim - 1) + [(0, pad)])
    groups = filled.reshape(*stream.shape[:-1], -1, bits)
    words = np.zeros((*groups.shape[:-1], CODES_A_WORD), np.uint8)
    words[..., :bits] = groups
    shifts = np.arange(CODES_A_WORD, dtype=np.uint64) * np.uint64(bits)
    split = (words.view("<u8") >> shifts) & np.uint64(2**bits - 1)
    found: NDArray[np.uint8] = split.reshape(*stream.shape[:-1], -1).astype(np.uint8)
    return found


def gathered(rows: Rows, columns: NDArray[Any] | int, count: int) -> Rows:
    """(n, count) of (n, groups): every column its own group's number; columns: which group each
    belongs to, or how many neighbours share one.
    """
    if not isinstance(columns, int):
        return rows[:, columns]
    return rows if rows.shape[1] == 1 else np.repeat(rows, columns, axis=1)[:, :count]


def dequantise(found: Groups, columns: NDArray[Any] | int, bits: int) -> Rows:
    """(n, c) float32 numbers of codes; columns: as `gathered` takes them."""
    numbers: NDArray[np.float32] = found.codes.astype(np.float32)
    count = numbers.shape[1]
    if found.zeros is None:
        numbers -= np.float32(2 ** (bits - 1))
    else:
        numbers -= gathered(found.zeros.astype(np.float32), columns, count)
    numbers *= gathered(found.scales.astype(np.float32), columns, count)
    return numbers
