"""Rows of weights in, rows of a ggml type out.

Casts between float32, float16 and bfloat16 are NumPy's, to float16 ggml's where it is there; blocks (`Q4_K` and the like) are written by ggml itself, from
the shared library that llama-cpp-python brings, called without loading the rest of that package. Everything here
releases the GIL while it works and may run in several threads at once. Shapes: n rows of c values.
"""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from converters.to_gguf.types import FILE_TYPES
from ropeconv.errors import CannotExpress, RopeconvError, unknown_name

Array = np.ndarray[Any, Any]

FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# bits of +inf, in the integer of the same width; every larger magnitude is a NaN
INFINITY = {"float32": 0x7F800000, "float16": 0x7C00, "bfloat16": 0x7F80}

WRITTEN = frozenset(row.base for row in FILE_TYPES.values())
_ADVICE = "install ropeconv[llama], or take F32, F16 or BF16"
_LIBRARY_NAMES = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll", "libggml-base.dll")
_CPU_LIBRARY_NAMES = ("libggml-cpu.so", "libggml-cpu.dylib", "ggml-cpu.dll")
PIECE = 1 << 18  # values cast at a time: 1 MiB of float32 between the two casts
_int, _i64, _size, _ptr = ctypes.c_int, ctypes.c_int64, ctypes.c_size_t, ctypes.c_void_p
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_quantize_init": (None, [_int]),
    # type, source, destination, first value, rows, values per row, importance matrix
    "ggml_quantize_chunk": (_size, [_int, _ptr, _ptr, _i64, _i64, _i64, _ptr]),
    "ggml_validate_row_data": (ctypes.c_bool, [_int, _ptr, _size]),
}


class BadValueError(RopeconvError):
    """A value that is not finite, or that the wanted type cannot hold; the caller adds the tensor's name.

    `row` and `column` count within the rows that were given.
    """

    def __init__(self, row: int, column: int, value: float, reason: str) -> None:
        super().__init__(f"value {value:g} at row {row}, column {column} {reason}")
        self.row, self.column, self.value, self.reason = row, column, value, reason


@cache
def block_size(type_name: str) -> tuple[int, int]:
    """(values, bytes) of one block of a ggml type; a plain float type has blocks of one value. From `gguf`."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    values, size = GGML_QUANT_SIZES[GGMLQuantizationType[type_name]]
    return int(values), int(size)


def fits_blocks(type_name: str, cols: int) -> bool:
    """Whether a row of `cols` values is a whole number of blocks."""
    return cols % block_size(type_name)[0] == 0


def row_bytes(type_name: str, cols: int) -> int:
    """Bytes of one row of `cols` values. Raises CannotExpress when they do not fill whole blocks."""
    values, size = block_size(type_name)
    if cols % values:
        raise CannotExpress(f"a row of {cols} values is no whole number of {type_name} blocks of {values}; take F16")
    return cols // values * size


def quantize_rows(rows: Array, type_name: str) -> Array:
    """float32 (n, c) -> uint8 (n, row_bytes), byte for byte what llama-quantize writes.

    Rows are independent, so slabs of rows may be quantised apart and joined. Raises BadValueError for a value that is
    not finite, RopeconvError when ggml rejects its own result (a scale past float16), CannotExpress without ggml, for
    a type that ropeconv does not write and for rows that do not fill blocks.
    """
    if rows.dtype != np.float32 or rows.ndim != 2:
        raise TypeError(f"quantize_rows takes float32 rows of two axes, not {rows.dtype} of shape {rows.shape}")
    if type_name not in WRITTEN:  # ggml ends the process when a type wants an importance matrix and gets none
        raise CannotExpress(unknown_name("ggml type to quantise to", type_name, WRITTEN))
    out = np.empty((rows.shape[0], row_bytes(type_name, rows.shape[1])), np.uint8)
    rows = np.require(rows, requirements=["C", "A"])  # a tensor of a mapped file may start at any byte
    if not all_finite(rows):
        raise _bad_value(rows, type_name)
    lib, number = _prepare(type_name)
    written = lib.ggml_quantize_chunk(number, rows.ctypes.data, out.ctypes.data, 0, *rows.shape, None)
    if written != out.nbytes:
        raise RopeconvError(f"ggml wrote {written} bytes of {type_name}, not {out.nbytes}: {_ADVICE}")
    if not lib.ggml_validate_row_data(number, out.ctypes.data, out.nbytes):
        raise RopeconvError(f"values up to {np.abs(rows).max():g} overflow the scales of {type_name}; take BF16 or F32")
    return out


def dequantize_rows(data: Array, type_name: str) -> Array:
    """uint8 (n, row_bytes) -> float32 (n, c). Needs no ggml: `gguf.quants` gives ggml's very values."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    return np.asarray(dequantize(data, GGMLQuantizationType[type_name]))


def cast_rows(rows: Array, type_name: str) -> Array:
    """float32, float16 or bfloat16, any shape -> the same shape in `type_name` (F32, F16 or BF16).

    Rounds to nearest even as ggml does, subnormals included; a value too small for float16 becomes zero there too.
    Returns `rows` itself when nothing is to be done. Raises BadValueError for a value that is not finite or is past the
    range of `type_name`.
    """
    source, target = rows.dtype.name, FLOATS[type_name]
    if source not in INFINITY:
        raise TypeError(f"cast_rows takes float32, float16 or bfloat16, not {source}")
    if source == "float32" and not all_finite(rows):  # a float32 NaN can narrow to a finite float16
        raise _bad_value(rows, type_name)
    if source == target == "float32":
        return rows
    out = rows if source == target else _cast(rows, source, target)
    if not all_finite(out):
        raise _bad_value(rows, type_name)
    return out


def _cast(rows: Array, source: str, target: str) -> Array:
    """Values that are not finite or too large come out infinite or NaN, in silence."""
    if target == "float16" and (native := _native_casts()):
        return _narrow_natively(rows, native)
    with np.errstate(all="ignore"):
        if source == "float32" and target == "float16":
            return _narrow_to_float16(rows)
        if "float16" in (source, target):
            return np.take(_table(source, target), np.ascontiguousarray(rows).view(np.uint16), mode="wrap")
        return rows.astype(_dtype(target))  # float32 <-> bfloat16: vectorised in ml_dtypes


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

    widen: bfloat16 to float32. narrow: float32 to float16. Its cast to bfloat16 flushes subnormals on some processors.
    """
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        return {}
    folder = Path(spec.submodule_search_locations[0], "lib")
    try:
        lib = ctypes.CDLL(str(next(folder / name for name in _CPU_LIBRARY_NAMES if (folder / name).exists())))
        found = {"widen": lib.ggml_cpu_bf16_to_fp32, "narrow": lib.ggml_cpu_fp32_to_fp16}
    except (OSError, AttributeError, StopIteration):
        return {}
    for function in found.values():
        function.restype, function.argtypes = None, [_ptr, _ptr, _i64]
    return found


def all_finite(values: Array) -> bool:
    """Whether no value is infinite or NaN: two integer maxima, which NumPy vectorises for every float width."""
    if not values.size:
        return True
    bits, infinity = 8 * values.itemsize, INFINITY[values.dtype.name]
    values = np.ascontiguousarray(values)
    # as signed integers the positive floats are the largest, as unsigned ones the negative floats
    signed, unsigned = values.view(f"i{bits // 8}"), values.view(f"u{bits // 8}")
    return bool(signed.max() < infinity and unsigned.max() < infinity | 1 << (bits - 1))


def _dtype(name: str) -> np.dtype[Any]:
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


@cache
def _table(source: str, target: str) -> Array:
    """A 16-bit float has 65536 values, so a table holds the cast of each; far quicker than NumPy's float16 loops."""
    every = np.arange(1 << 16, dtype=np.uint16).view(_dtype(source))
    return every.astype(np.float32).astype(_dtype(target))


def _narrow_to_float16(rows: Array) -> Array:
    """float32 -> float16, round to nearest even, by float addition (the method of the FP16 library, as in ggml).

    NumPy's own cast raises a processor flag for every value that becomes subnormal, 25 times slower on small weights.
    Adding a power of two whose last place is that of the float16 result makes the adder round to it; the sum's low bits
    are then the float16's exponent and mantissa.
    """
    bits = np.ascontiguousarray(rows).view(np.uint32)
    power = bits << 1  # drops the sign
    power &= 0xFF000000  # the exponent alone
    np.maximum(power, 0x71000000, out=power)  # below 2**-14 float16 is subnormal: the last place stays put
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


def _bad_value(rows: Array, type_name: str) -> BadValueError:
    """The first value of `rows` (n, c) that is not finite or that `type_name` cannot hold."""
    with np.errstate(all="ignore"):
        wide = rows.reshape(-1, rows.shape[-1]).astype(np.float32)
        bad = ~np.isfinite(wide)
        reason = "is not finite; the checkpoint is damaged"
        if not bad.any():
            bad = ~np.isfinite(wide.astype(_dtype(FLOATS[type_name])).astype(np.float32))
            reason = f"is past the range of {type_name}; take {'F32' if type_name == 'BF16' else 'BF16 or F32'}"
    row, column = (int(axis) for axis in np.argwhere(bad)[0])
    return BadValueError(row, column, float(wide[row, column]), reason)


_LOCK = threading.Lock()
_READY: dict[str, int] = {}


def _prepare(type_name: str) -> tuple[ctypes.CDLL, int]:
    """The library and the type's ggml number, its tables built."""
    from gguf import GGMLQuantizationType

    lib = _library()
    with _LOCK:
        if type_name not in _READY:
            number = int(GGMLQuantizationType[type_name])
            lib.ggml_quantize_init(number)
            _READY[type_name] = number
    return lib, _READY[type_name]


@cache
def _library() -> ctypes.CDLL:
    """ggml's base library inside the llama-cpp-python package."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        raise CannotExpress(f"quantised types are written by ggml, which is not installed: {_ADVICE}")
    folder = Path(spec.submodule_search_locations[0], "lib")
    path = next((folder / name for name in _LIBRARY_NAMES if (folder / name).exists()), None)
    if path is None:
        raise CannotExpress(f"{folder} holds no ggml-base library: reinstall llama-cpp-python >= 0.3.36, or take F16")
    try:
        lib = ctypes.CDLL(str(path))
        for symbol, (result, arguments) in _SIGNATURES.items():
            function = getattr(lib, symbol)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise CannotExpress(f"{path.name} is not usable ({error}): reinstall llama-cpp-python >= 0.3.36") from error
    return lib
