"""Casts against ggml's own functions, bit for bit, and what they refuse."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from converters.to_gguf.quant.ggml import quantize_rows
from ropeconv.kit.casts import BadValueError, _native_casts, all_finite, cast_rows

llama_cpp = pytest.importorskip("llama_cpp")

Array = np.ndarray[Any, Any]
BF16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture(params=["native", "numpy"])
def casts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to float16: ggml's, and NumPy's where llama-cpp-python is not installed."""
    if request.param == "numpy":
        monkeypatch.setattr("ropeconv.kit.casts._native_casts", dict)
    else:
        assert set(_native_casts()) == {"widen", "narrow"}
    return str(request.param)


def ggml_row(function: str, source: Array, out: np.dtype[Any]) -> Array:
    """One of ggml's row conversions, loaded the way llama_cpp loads it."""
    from llama_cpp import _ggml

    result = np.empty(source.shape, out)
    call = getattr(_ggml.libggml, function)
    call(
        ctypes.c_void_p(source.ctypes.data),
        ctypes.c_void_p(result.ctypes.data),
        ctypes.c_int64(source.size),
    )
    return result


def bits(values: Array) -> Array:
    return values.view(f"u{values.itemsize}")


def finite_16(dtype: np.dtype[Any]) -> Array:
    """Every finite value of a 16-bit float."""
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    with np.errstate(invalid="ignore"):
        kept: Array = every[np.isfinite(every.astype(np.float32))]
    return kept


def hard_float32(dtype: np.dtype[Any]) -> Array:
    """float32 at, just below and just above every value of `dtype` and every midpoint of two, and
    random bits.
    """
    values = np.unique(finite_16(dtype).astype(np.float32))
    midpoints = (values[:-1].astype(np.float64) + values[1:]) / 2
    centres = np.concatenate([values, midpoints.astype(np.float32)])
    random = (
        np.random.default_rng(1).integers(0, 1 << 32, 300_000, dtype=np.uint32).view(np.float32)
    )
    with np.errstate(all="ignore"):
        above, below = (
            np.nextafter(centres, np.float32(np.inf)),
            np.nextafter(centres, -np.float32(np.inf)),
        )
    hard = np.concatenate([centres, above, below, random])
    # from here on the cast overflows
    largest = {"float16": 65520.0, "bfloat16": 3.3961776e38}[dtype.name]
    kept: Array = hard[np.abs(hard) < largest]
    return kept


CASTS = [
    (
        "F16",
        lambda: hard_float32(np.dtype(np.float16)),
        "ggml_fp32_to_fp16_row",
        np.dtype(np.float16),
    ),
    ("BF16", lambda: hard_float32(BF16), "ggml_fp32_to_bf16_row_ref", BF16),
    ("F32", lambda: finite_16(BF16), "ggml_bf16_to_fp32_row", np.dtype(np.float32)),
    ("F32", lambda: finite_16(np.dtype(np.float16)), "ggml_fp16_to_fp32_row", np.dtype(np.float32)),
]


@pytest.mark.parametrize(("to", "source", "function", "out"), CASTS)
@pytest.mark.usefixtures("casts")
def test_casts_are_ggmls_bit_for_bit(
    to: str, source: Callable[[], Array], function: str, out: np.dtype[Any]
) -> None:
    values = source()
    ours, theirs = cast_rows(values, to), ggml_row(function, values, out)
    assert ours.dtype == out
    assert np.array_equal(bits(ours), bits(theirs))
    assert values.size > 60_000


@pytest.mark.usefixtures("casts")
def test_bfloat16_to_float16_and_back_are_ggmls() -> None:
    """Between the 16-bit types ggml goes through float32."""
    brain, half = finite_16(BF16), finite_16(np.dtype(np.float16))
    brain = brain[np.abs(brain.astype(np.float32)) < 65520]
    wide = ggml_row("ggml_bf16_to_fp32_row", brain, np.dtype(np.float32))
    theirs = ggml_row("ggml_fp32_to_fp16_row", wide, np.dtype(np.float16))
    assert np.array_equal(bits(cast_rows(brain, "F16")), bits(theirs))
    wide = ggml_row("ggml_fp16_to_fp32_row", half, np.dtype(np.float32))
    theirs = ggml_row("ggml_fp32_to_bf16_row_ref", wide, BF16)
    assert np.array_equal(bits(cast_rows(half, "BF16")), bits(theirs))


@pytest.mark.parametrize("fault", ["truncates", "rounds half up", "flushes subnormals"])
def test_the_hard_values_see_a_wrong_rounding(fault: str) -> None:
    """Planted fault: three wrong float16 casts, each close enough to fool a tolerance."""
    values = hard_float32(np.dtype(np.float16))
    values = values[np.abs(values) < 65504]
    right = ggml_row("ggml_fp32_to_fp16_row", values, np.dtype(np.float16))
    with np.errstate(all="ignore"):
        wrong = {
            "truncates": (bits(values) & 0xFFFFE000).view(np.float32).astype(np.float16),
            "rounds half up": np.where(
                np.abs(values) >= 2**-14, (bits(values) + 0x1000) & 0xFFFFE000, bits(values)
            )
            .view(np.float32)
            .astype(np.float16),
            "flushes subnormals": np.where(np.abs(values) < 2**-14, np.float32(0), values).astype(
                np.float16
            ),
        }[fault]
    assert not np.array_equal(bits(wrong), bits(right))


@pytest.mark.usefixtures("casts")
def test_cast_keeps_shape_and_takes_strided_rows() -> None:
    rows = np.arange(24, dtype=np.float32).reshape(4, 6)
    assert np.array_equal(cast_rows(rows.T, "F16"), rows.T.astype(np.float16))
    assert np.array_equal(
        cast_rows(rows.astype(BF16)[:, ::2], "F16"), rows[:, ::2].astype(np.float16)
    )
    assert cast_rows(rows, "F32") is rows


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), np.dtype(np.float16), BF16])
@pytest.mark.usefixtures("casts")
def test_rows_at_an_odd_address_are_read(dtype: np.dtype[Any]) -> None:
    """A tensor of a mapped file may start anywhere, and must not be written to."""
    aligned = np.random.default_rng(4).standard_normal((4, 64)).astype(dtype)
    odd = np.frombuffer(b"x" + aligned.tobytes(), np.uint8)[1:].view(dtype).reshape(4, 64)
    assert not odd.flags.aligned
    for to in ("F32", "F16", "BF16"):
        assert cast_rows(odd, to).tobytes() == cast_rows(aligned, to).tobytes()
    if dtype == np.float32:
        assert quantize_rows(odd, "Q5_1").tobytes() == quantize_rows(aligned, "Q5_1").tobytes()


# narrowing its bits without a look gives a finite float16
QUIET = np.uint32(0x7FC00FFF).view(np.float32)


@pytest.mark.parametrize("source", [np.dtype(np.float32), np.dtype(np.float16), BF16])
@pytest.mark.parametrize("to", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, -np.nan, QUIET])
@pytest.mark.usefixtures("casts")
def test_values_that_are_not_finite_are_refused(source: np.dtype[Any], to: str, bad: float) -> None:
    rows = np.ones((5, 32), np.float32)
    rows[3, 7] = bad
    with pytest.raises(BadValueError, match="at row 3, column 7 is not finite") as error:
        cast_rows(rows.astype(source), to)
    assert (error.value.row, error.value.column) == (3, 7)
    rows[3, 7] = 1
    cast_rows(rows.astype(source), to)


@pytest.mark.parametrize(
    ("source", "to", "value", "largest"),
    [
        (np.dtype(np.float32), "F16", 65520.0, 65519.99),
        (np.dtype(np.float32), "F16", -65520.0, -65519.99),
        (BF16, "F16", 65536.0, 65280.0),
        (np.dtype(np.float32), "BF16", 3.4e38, 3.39e38),
    ],
)
@pytest.mark.usefixtures("casts")
def test_overflow_is_refused(source: np.dtype[Any], to: str, value: float, largest: float) -> None:
    rows = np.ones((2, 40), np.float32)
    rows[1, 39] = value
    with pytest.raises(
        BadValueError, match=rf"at row 1, column 39 is past the range of {to}; take "
    ) as error:
        cast_rows(rows.astype(source), to)
    assert "\n" not in str(error.value)
    assert error.value.value == np.float32(value)
    rows[1, 39] = largest
    cast_rows(rows.astype(source), to)


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(TypeError, match="float64"):
        cast_rows(np.ones((1, 32)), "F16")
    with pytest.raises(TypeError, match="float16"):
        quantize_rows(np.ones((1, 32), np.float16), "Q8_0")


def test_all_finite_sees_every_value_that_is_not() -> None:
    """Exhaustive over both 16-bit floats, one value at a time among ones."""
    for dtype in (np.dtype(np.float16), BF16):
        every = np.arange(1 << 16, dtype=np.uint16).view(dtype)
        with np.errstate(invalid="ignore"):
            expected = np.isfinite(every.astype(np.float32))
        pair = np.ones(2, dtype)
        for at in range(0, 1 << 16, 7):
            pair[1] = every[at]
            assert all_finite(pair) == expected[at]
