"""Blocks against ggml's own functions, bit for bit; refusals; the seams to the shared library."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from converters.to_gguf.quant import ggml
from converters.to_gguf.quant.ggml import dequantize_rows, quantize_rows, row_bytes
from converters.to_gguf.quant.types import FILE_TYPES, MUST_BE_WEIGHED
from ropeconv.errors import CannotExpress, RopeconvError
from ropeconv.kit.casts import BadValueError

llama_cpp = pytest.importorskip("llama_cpp")

Array = np.ndarray[Any, Any]
BF16 = np.dtype(ml_dtypes.bfloat16)
BLOCK_TYPES = sorted({row.base for row in FILE_TYPES.values() if row.quantised})


def quantize(rows: Array, type_name: str) -> Array:
    """Columns alike where a type needs to be told."""
    alike = np.ones(rows.shape[1], np.float32) if type_name in MUST_BE_WEIGHED else None
    return quantize_rows(rows, type_name, alike)


@pytest.mark.parametrize("type_name", BLOCK_TYPES)
def test_dequantised_rows_are_ggmls(type_name: str) -> None:
    """llama_cpp's own view of the type: name, block and its `to_float`."""
    rows = np.random.default_rng(2).standard_normal((3, 512)).astype(np.float32)
    data = quantize(rows, type_name)
    ours, theirs = dequantize_rows(data, type_name), ggml_to_float(data, type_name, rows.shape)
    assert ours.tobytes() == theirs.tobytes()
    assert data.shape == (3, row_bytes(type_name, 512))
    data[1, 5] ^= 1
    assert dequantize_rows(data, type_name).tobytes() != theirs.tobytes()


class Traits(ctypes.Structure):
    """`ggml_type_traits` of ggml.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("values", ctypes.c_int64),
        ("interleave", ctypes.c_int64),
        ("size", ctypes.c_size_t),
        ("quantised", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float", ctypes.c_void_p),
    )


def ggml_to_float(data: Array, type_name: str, shape: tuple[int, ...]) -> Array:
    from gguf import GGMLQuantizationType
    from llama_cpp import _ggml

    get = _ggml.libggml.ggml_get_type_traits
    get.restype = ctypes.POINTER(Traits)
    traits = get(int(GGMLQuantizationType[type_name])).contents
    assert (traits.values, traits.size) == ggml.block_size(type_name)
    assert traits.name.decode().upper() == type_name
    out = np.empty(shape, np.float32)
    traits.to_float(data.ctypes.data, out.ctypes.data, out.size)
    return out


@pytest.mark.parametrize("type_name", BLOCK_TYPES)
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_quantising_a_value_that_is_not_finite_is_refused(type_name: str, bad: float) -> None:
    rows = np.ones((2, 256), np.float32)
    rows[1, 200] = bad
    with pytest.raises(BadValueError, match="row 1, column 200 is not finite"):
        quantize(rows, type_name)


def test_a_scale_past_float16_is_refused() -> None:
    with pytest.raises(RopeconvError, match="values up to 1e\\+30 overflow the scales of Q8_0"):
        quantize_rows(np.full((1, 32), 1e30, np.float32), "Q8_0")


def test_rows_that_do_not_fill_blocks_and_unwritten_types_are_refused() -> None:
    with pytest.raises(
        CannotExpress, match="row of 288 values is no whole number of Q4_K blocks of 256"
    ):
        quantize_rows(np.ones((1, 288), np.float32), "Q4_K")
    with pytest.raises(CannotExpress, match="no ggml type to quantise to 'NVFP4'"):
        quantize_rows(np.ones((1, 256), np.float32), "NVFP4")
    with pytest.raises(CannotExpress, match="IQ2_XXS cannot be made without an importance matrix"):
        quantize_rows(np.ones((1, 256), np.float32), "IQ2_XXS")
    with pytest.raises(TypeError, match=r"weights of shape \(255,\) for rows of 256 values"):
        quantize_rows(np.ones((1, 256), np.float32), "Q4_K", np.ones(255, np.float32))


@pytest.fixture
def no_library_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library looked up again, without disturbing the one in use."""
    monkeypatch.setattr(ggml, "_library", ggml._library.__wrapped__)


def test_without_the_package_the_extra_is_named(
    no_library_yet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(CannotExpress, match=r"not installed: install ropeconv\[llama\]"):
        quantize_rows(np.ones((1, 32), np.float32), "Q8_0")


def test_a_missing_symbol_is_one_line(
    no_library_yet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ggml._SIGNATURES, "ggml_no_such_function", (None, []))
    with pytest.raises(
        CannotExpress, match=r"is not usable \(.*ggml_no_such_function.*\): reinstall"
    ) as error:
        quantize_rows(np.ones((1, 32), np.float32), "Q8_0")
    assert "\n" not in str(error.value)


def test_a_package_without_the_library_is_one_line(
    no_library_yet: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "llama_cpp")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        CannotExpress, match="holds no ggml-base library: reinstall llama-cpp-python"
    ):
        quantize_rows(np.ones((1, 32), np.float32), "Q8_0")


def test_quantising_loads_neither_llama_cpp_nor_torch() -> None:
    script = (
        "import sys, numpy as np\n"
        "from converters.to_gguf.quant.ggml import quantize_rows\n"
        "quantize_rows(np.ones((1, 32), np.float32), 'Q8_0')\n"
        "print([m for m in ('llama_cpp', 'torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
