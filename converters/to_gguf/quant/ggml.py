"""Rows of weights in, rows of ggml blocks out.

Blocks (`Q4_K` and the like) are written by ggml itself, from the shared library that
llama-cpp-python brings, called without loading the rest of that package. Everything here releases
the GIL while it works and may run in several threads at once. Shapes: n rows of c values.
"""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from converters.to_gguf.quant.types import GGML_TYPES, MUST_BE_WEIGHED
from ropeconv.errors import CannotExpress, RopeconvError, unknown_name
from ropeconv.kit.casts import all_finite, bad_value

Array = np.ndarray[Any, Any]

IMATRIX = "give --imatrix FILE, which `ropeconv imatrix` makes"
_ADVICE = "install ropeconv[llama], or take F32, F16 or BF16"
_LIBRARY_NAMES = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll", "libggml-base.dll")
_int, _i64, _size, _ptr = ctypes.c_int, ctypes.c_int64, ctypes.c_size_t, ctypes.c_void_p
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_quantize_init": (None, [_int]),
    # type, source, destination, first value, rows, values per row, importance matrix
    "ggml_quantize_chunk": (_size, [_int, _ptr, _ptr, _i64, _i64, _i64, _ptr]),
    "ggml_validate_row_data": (ctypes.c_bool, [_int, _ptr, _size]),
}


@cache
def block_size(type_name: str) -> tuple[int, int]:
    """(values, bytes) of one block of a ggml type; a plain float type has blocks of one value. From
    `gguf`.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    values, size = GGML_QUANT_SIZES[GGMLQuantizationType[type_name]]
    return int(values), int(size)


def fits_blocks(type_name: str, cols: int) -> bool:
    """Whether a row of `cols` values is a whole number of blocks."""
    return cols % block_size(type_name)[0] == 0


def row_bytes(type_name: str, cols: int) -> int:
    """Bytes of one row of `cols` values. CannotExpress when they do not fill whole blocks."""
    values, size = block_size(type_name)
    if cols % values:
        raise CannotExpress(
            f"a row of {cols} values is no whole number of {type_name} blocks of {values}; take F16"
        )
    return cols // values * size


def quantize_rows(rows: Array, type_name: str, weights: Array | None = None) -> Array:
    """float32 (n, c) -> uint8 (n, row_bytes), byte for byte what llama-quantize writes.

    weights: (c,) float32, how much each column matters. Rows are independent, so slabs of rows may
    be quantised apart and joined. Raises BadValueError for a value that is not finite,
    RopeconvError when ggml rejects its own result (a scale past float16), CannotExpress without
    ggml, without weights that the type needs, for a type that ropeconv does not write and for rows
    that do not fill blocks.
    """
    if rows.dtype != np.float32 or rows.ndim != 2:
        raise TypeError(
            f"quantize_rows takes float32 rows of two axes, not {rows.dtype} of shape {rows.shape}"
        )
    if type_name not in GGML_TYPES:
        raise CannotExpress(unknown_name("ggml type to quantise to", type_name, GGML_TYPES))
    if weights is None and type_name in MUST_BE_WEIGHED:
        raise CannotExpress(f"{type_name} cannot be made without an importance matrix: {IMATRIX}")
    if weights is not None:
        weights = np.require(weights, np.float32, ["C", "A"])
        if weights.shape != rows.shape[1:]:
            raise TypeError(f"weights of shape {weights.shape} for rows of {rows.shape[1]} values")
    out = np.empty((rows.shape[0], row_bytes(type_name, rows.shape[1])), np.uint8)
    # a tensor of a mapped file may start at any byte
    rows = np.require(rows, requirements=["C", "A"])
    if not all_finite(rows):
        raise bad_value(rows, type_name)
    lib, number = _prepare(type_name)
    written = lib.ggml_quantize_chunk(
        number,
        rows.ctypes.data,
        out.ctypes.data,
        0,
        *rows.shape,
        None if weights is None else weights.ctypes.data,
    )
    if written != out.nbytes:
        raise RopeconvError(
            f"ggml wrote {written} bytes of {type_name}, not {out.nbytes}: {_ADVICE}"
        )
    if not lib.ggml_validate_row_data(number, out.ctypes.data, out.nbytes):
        raise RopeconvError(
            f"values up to {np.abs(rows).max():g} overflow the scales of {type_name}; take BF16 or "
            f"F32"
        )
    return out


def dequantize_rows(data: Array, type_name: str) -> Array:
    """uint8 (n, row_bytes) -> float32 (n, c). Needs no ggml: `gguf.quants` gives ggml's very
    values. CannotExpress for a type that it does not know.
    """
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        return np.asarray(dequantize(data, GGMLQuantizationType[type_name]))
    except NotImplementedError as error:
        raise CannotExpress(
            f"the numbers in {type_name} blocks are not known to gguf-py; ropeconv gguf without "
            f"--type keeps the blocks as they are"
        ) from error


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
        raise CannotExpress(
            f"quantised types are written by ggml, which is not installed: {_ADVICE}"
        )
    folder = Path(spec.submodule_search_locations[0], "lib")
    path = next((folder / name for name in _LIBRARY_NAMES if (folder / name).exists()), None)
    if path is None:
        raise CannotExpress(
            f"{folder} holds no ggml-base library: reinstall llama-cpp-python >= 0.3.36, or take "
            f"F16"
        )
    try:
        lib = ctypes.CDLL(str(path))
        for symbol, (result, arguments) in _SIGNATURES.items():
            function = getattr(lib, symbol)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise CannotExpress(
            f"{path.name} is not usable ({error}): reinstall llama-cpp-python >= 0.3.36"
        ) from error
    return lib
