"""Casts between float32, float16 and bfloat16, with every value checked.

They are NumPy's, to float16 ggml's where llama-cpp-python is installed: the same bits, several
times sooner. Everything here releases the GIL while it works and may run in several threads at
once.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ropeconv.errors import RopeconvError
from ropeconv.kit.float_types import FLOATS, INFINITY, numpy_dtype

Array = np.ndarray[Any, Any]

_CPU_LIBRARY_NAMES = ("libggml-cpu.so", "libggml-cpu.dylib", "ggml-cpu.dll")
PIECE = 1 << 18  # values cast at a time: 1 MiB of float32 between the two casts
PEEK = 4096  # values that nearly always tell that not all are zero
_i64 = ctypes.c_int64
_ptr = ctypes.c_void_p


class BadValueError(RopeconvError):
    """A value that is not finite, or that the wanted type cannot hold; the caller adds the tensor's
    name.

    `row` and `column` count within the rows that were given.
    """

    def __init__(self, row: int, column: int, value: float, reason: str) -> None:
        super().__init__(f"value {value:g} at row {row}, column {column} {reason}")
        self.row = row
        self.column = column
        self.value = value
        self.reason = reason


def cast_rows(rows: Array, type_name: str) -> Array:
    """float32, float16 or bfloat16, any shape -> the same shape in `type_name` (F32, F16 or BF16).

    Rounds to nearest even as ggml does, subnormals included; a value too small for float16 becomes
    zero there too. Returns `rows` itself when nothing is to be done. Raises BadValueError for a
    value that is not finite or is past the range of `type_name`, and where every value became zero,
    which no forward pass would survive unseen.
    """
    source = rows.dtype.name
    target = FLOATS[type_name]
    if source not in INFINITY:
        raise TypeError(f"cast_rows takes float32, float16 or bfloat16, not {source}")
    if source == "float32" and not all_finite(rows):  # a float32 NaN can narrow to a finite float16
        raise bad_value(rows, type_name)
    if source == target == "float32":
        return rows
    out = rows if source == target else _cast(rows, source, target)
    if not all_finite(out):
        raise bad_value(rows, type_name)
    if out is not rows and _is_zero(out) and not _is_zero(rows):
        place = int(np.flatnonzero(np.asarray(rows, np.float32))[0])
        row, column = divmod(place, rows[0].size)
        reason = f"and all values about it are too small for {type_name}; take BF16 or F32"
        raise BadValueError(row, column, float(rows.reshape(-1)[place]), reason)
    return out


def _is_zero(values: Array) -> bool:
    return not values.reshape(-1)[:PEEK].any() and not values.any()


def _cast(rows: Array, source: str, target: str) -> Array:
    """Values that are not finite or too large come out infinite or NaN, in silence."""
    if target == "float16" and (native := _native_casts()):
        return _narrow_natively(rows, native)
    with np.errstate(all="ignore"):
        if source == "float32" and target == "float16":
            return _narrow_to_float16(rows)
        if "float16" in (source, target):
            return np.take(
                _table(source, target), np.ascontiguousarray(rows).view(np.uint16), mode="wrap"
            )
        return rows.astype(numpy_dtype(target))  # float32 <-> bfloat16: vectorised in ml_dtypes


def _narrow_natively(rows: Array, native: dict[str, Any]) -> Array:
    """float32 or bfloat16 -> float16, in pieces that stay in the processor's cache."""
    values = np.ascontiguousarray(rows).reshape(-1)
    out = np.empty(values.shape, np.float16)
    wide = np.empty(min(PIECE, values.size), np.float32)
    for start in range(0, values.size, PIECE):
        count = min(PIECE, values.size - start)
        piece = values.ctypes.data + start * values.itemsize
        if values.dtype != np.float32:
            native["widen"](piece, wide.ctypes.data, count)
            piece = wide.ctypes.data
        native["narrow"](piece, out.ctypes.data + 2 * start, count)
    return out.reshape(rows.shape)


@cache
def _native_casts() -> dict[str, Any]:
    """ggml's vectorised casts, which give NumPy's very bits several times sooner; {} without ggml.

    widen: bfloat16 to float32. narrow: float32 to float16. Its cast to bfloat16 flushes subnormals
    on some processors.
    """
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        return {}
    folder = Path(spec.submodule_search_locations[0], "lib")
    try:
        lib = ctypes.CDLL(
            str(next(folder / name for name in _CPU_LIBRARY_NAMES if (folder / name).exists()))
        )
        found = {"widen": lib.ggml_cpu_bf16_to_fp32, "narrow": lib.ggml_cpu_fp32_to_fp16}
    except (OSError, AttributeError, StopIteration):
        return {}
    for function in found.values():
        function.restype = None
        function.argtypes = [_ptr, _ptr, _i64]
    return found


def all_finite(values: Array) -> bool:
    """Whether no value is infinite or NaN: two integer maxima, which NumPy vectorises for every
    float width.
    """
    if not values.size:
        return True
    bits = 8 * values.itemsize
    infinity = INFINITY[values.dtype.name]
    values = np.ascontiguousarray(values)
    # as signed integers the positive floats are the largest, as unsigned ones the negative floats
    signed, unsigned = values.view(f"i{bits // 8}"), values.view(f"u{bits // 8}")
    return bool(signed.max() < infinity and unsigned.max() < infinity | 1 << (bits - 1))


@cache
def _table(source: str, target: str) -> Array:
    """A 16-bit float has 65536 values, so a table holds the cast of each; far quicker than NumPy's
    float16 loops.
    """
    every = np.arange(1 << 16, dtype=np.uint16).view(numpy_dtype(source))
    return every.astype(np.float32).astype(numpy_dtype(target))


def _narrow_to_float16(rows: Array) -> Array:
    """float32 -> float16, round to nearest even, by float addition (the method of the FP16 library,
    as in ggml).

    NumPy's own cast raises a processor flag for every value that becomes subnormal, 25 times slower
    on small weights. Adding a power of two whose last place is that of the float16 result makes the
    adder round to it; the sum's low bits are then the float16's exponent and mantissa.
    """
    bits = np.ascontiguousarray(rows).view(np.uint32)
    power = bits << 1  # drops the sign
    power &= 0xFF000000  # the exponent alone
    np.maximum(
        power, 0x71000000, out=power
    )  # below 2**-14 float16 is subnormal: the last place stays put
    power >>= 1
    power += 0x07800000
    total = np.abs(bits.view(np.float32))
    total *= np.float32(2.0**112)  # up to infinity where float16 overflows
    total *= np.float32(2.0**-110)
    total += power.view(np.float32)
    half = total.view(np.uint32)
    np.right_shift(half, 13, out=power)
    power &= 0x7C00
    half &= 0x0FFF
    half += power
    np.right_shift(bits, 16, out=power)
    power &= 0x8000
    half |= power
    return half.astype(np.uint16).view(np.float16)


def bad_value(rows: Array, type_name: str) -> BadValueError:
    """The first value of `rows` (n, c) that is not finite or that `type_name` cannot hold."""
    with np.errstate(all="ignore"):
        wide = rows.reshape(-1, rows.shape[-1]).astype(np.float32)
        bad = ~np.isfinite(wide)
        reason = "is not finite; the checkpoint is damaged"
        if not bad.any():
            bad = ~np.isfinite(wide.astype(numpy_dtype(FLOATS[type_name])).astype(np.float32))
            reason = (
                f"is past the range of {type_name}; take "
                f"{'F32' if type_name == 'BF16' else 'BF16 or F32'}"
            )
    row, column = (int(axis) for axis in np.argwhere(bad)[0])
    return BadValueError(row, column, float(wide[row, column]), reason)
