"""Packed rows against onnxruntime, which reads them, and against onnxruntime's own quantiser, which
is to be beaten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.to_onnx.quant._pack import OUTSIDE, Packed, pack_rows, unpack_rows
from converters.to_onnx.quant._types import Blocks
from ropeconv.kit.casts import BadValueError

ROWS = 24
CASES = [
    Blocks(bits, size, symmetric=sym)
    for bits, size, sym in product((4, 8), (16, 32, 64), (True, False))
]
COLUMNS = (
    64,
    192,
    104,
)  # whole blocks of each size; an odd number of them; a last one that is not full


def weights(columns: int, *, rows: int = ROWS, seed: int = 0) -> np.ndarray[Any, Any]:
    """Heavy-tailed rows, as trained ones are."""
    rng = np.random.default_rng(seed)
    return (rng.standard_t(5, (rows, columns)) * rng.uniform(0.01, 0.1, (rows, 1))).astype(
        np.float32
    )


def run(node: Any, values: dict[str, Any], feeds: dict[str, Any]) -> np.ndarray[Any, Any]:
    """One operator in onnxruntime, its tensors given as initializers."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    inputs = [
        helper.make_tensor_value_info(name, kinds[v.dtype.name], [None] * v.ndim)
        for name, v in feeds.items()
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph([node], "one", inputs, [output], tensors)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    result: np.ndarray[Any, Any] = session.run(None, feeds)[0]
    return result


def multiply(
    x: np.ndarray[Any, Any], packed: Packed, blocks: Blocks, *, columns: int, level: int = 1
) -> np.ndarray[Any, Any]:
    """x times the packed matrix transposed, by MatMulNBits."""
    from onnx import helper

    values = {"b": packed.codes, "scales": packed.scales}
    if packed.zero_points is not None:
        values["zeros"] = packed.zero_points
    sizes = {
        "K": columns,
        "N": len(packed.scales),
        "bits": blocks.bits,
        "block_size": blocks.size,
        "accuracy_level": level,
    }
    return run(
        helper.make_node("MatMulNBits", ["x", *values], ["y"], domain="com.microsoft", **sizes),
        values,
        {"x": x},
    )


def gather(packed: Packed, blocks: Blocks) -> np.ndarray[Any, Any]:
    """Every row, by GatherBlockQuantized."""
    from onnx import helper

    values = {"b": packed.codes.reshape(len(packed.codes), -1), "scales": packed.scales}
    if packed.zero_points is not None:
        values["zeros"] = packed.zero_points
    inputs = ["b", "ids", "scales", *(["zeros"] if "zeros" in values else [])]
    sizes = {"bits": blocks.bits, "block_size": blocks.size, "gather_axis": 0, "quantize_axis": 1}
    node = helper.make_node("GatherBlockQuantized", inputs, ["y"], domain="com.microsoft", **sizes)
    return run(node, values, {"ids": np.arange(len(packed.scales))})


def difference(found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> float:
    """Largest difference, relative to the largest value."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("blocks", CASES, ids=str)
def test_matmulnbits_multiplies_by_the_rows_that_unpack_says(blocks: Blocks, columns: int) -> None:
    packed = pack_rows(weights(columns), blocks)
    x = np.random.default_rng(1).standard_normal((5, columns)).astype(np.float32)
    assert (
        difference(
            multiply(x, packed, blocks, columns=columns),
            x @ unpack_rows(packed, blocks, columns=columns).T,
        )
        < 2e-6
    )


@pytest.mark.parametrize("columns", COLUMNS[:2])
@pytest.mark.parametrize("blocks", CASES, ids=str)
def test_gatherblockquantized_gives_the_rows_that_unpack_says(blocks: Blocks, columns: int) -> None:
    packed = pack_rows(weights(columns), blocks)
    np.testing.assert_array_equal(
        gather(packed, blocks), unpack_rows(packed, blocks, columns=columns)
    )


@pytest.mark.parametrize("blocks", CASES, ids=str)
def test_no_value_is_further_off_than_its_block_allows(blocks: Blocks) -> None:
    """The identity through onnxruntime: weights as they come out, against those that went in."""
    columns = 192
    rows = weights(columns)
    packed = pack_rows(rows, blocks)
    back = multiply(np.eye(columns, dtype=np.float32), packed, blocks, columns=columns).T
    step = np.abs(packed.scales).repeat(blocks.size, axis=1)[:, :columns]
    assert np.all(np.abs(back - rows) <= step * (1.1 + max(OUTSIDE[blocks.bits])))
    limit = {4: 0.15, 8: 0.01}[blocks.bits]
    assert np.linalg.norm(back - rows) < limit * np.linalg.norm(rows)


FAULTS: dict[str, Callable[[Packed], Packed]] = {
    "halves of a byte swapped": lambda p: replace(p, codes=(p.codes >> 4) | (p.codes << 4)),
    "one code off": lambda p: replace(
        p, codes=p.codes ^ (np.arange(p.codes.size).reshape(p.codes.shape) == 7)
    ),
    "scales of the next block": lambda p: replace(p, scales=np.roll(p.scales, 1, axis=1)),
    "zero points shifted": lambda p: replace(
        p, zero_points=None if p.zero_points is None else p.zero_points ^ 0x11
    ),
    "zero points lost": lambda p: replace(p, zero_points=None),
    "rows swapped": lambda p: replace(p, codes=p.codes[::-1].copy()),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_shows(fault: str) -> None:
    blocks, columns = Blocks(4, 32, symmetric=False), 192
    packed = pack_rows(weights(columns), blocks)
    wrong = FAULTS[fault](packed)
    x = np.random.default_rng(1).standard_normal((5, columns)).astype(np.float32)
    assert (
        difference(
            multiply(x, wrong, blocks, columns=columns),
            x @ unpack_rows(packed, blocks, columns=columns).T,
        )
        > 1e-3
    )
    assert np.any(gather(wrong, blocks) != unpack_rows(packed, blocks, columns=columns))


def onnxruntime_own(rows: np.ndarray[Any, Any], blocks: Blocks) -> np.ndarray[Any, Any]:
    """The rows after onnxruntime's default 4-bit quantiser."""
    from onnxruntime.capi._pybind_state import quantize_matmul_4bits

    n, c = rows.shape
    b = blocks.count(c)
    packed = Packed(
        np.zeros((n, b, blocks.block_bytes), np.uint8),
        np.zeros((n, b), np.float32),
        np.zeros((n, (b + 1) // 2), np.uint8),
    )
    columns = np.ascontiguousarray(rows.T)
    quantize_matmul_4bits(
        packed.codes,
        columns,
        packed.scales,
        packed.zero_points,
        blocks.size,
        n,
        c,
        blocks.symmetric,
    )
    return unpack_rows(
        replace(packed, zero_points=None) if blocks.symmetric else packed, blocks, columns=c
    )


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("size", [32, 128])
def test_four_bits_lose_less_than_with_onnxruntimes_own_quantiser(
    size: int, symmetric: bool
) -> None:
    rows, blocks = weights(512, rows=256), Blocks(4, size, symmetric=symmetric)
    ours = np.linalg.norm(unpack_rows(pack_rows(rows, blocks), blocks, columns=512) - rows)
    theirs = np.linalg.norm(onnxruntime_own(rows, blocks) - rows)
    assert ours < 0.97 * theirs


def test_the_few_ranges_come_close_to_all_of_them() -> None:
    """Brute force over scales and zero points, in plain Python's order: nothing of _pack.py's."""
    rows, blocks = weights(32, rows=40), Blocks(4, 32, symmetric=False)
    ours = np.square(unpack_rows(pack_rows(rows, blocks), blocks, columns=32) - rows).sum(axis=1)
    best = np.full(len(rows), np.inf)
    span = rows.max(axis=1) - rows.min(axis=1)
    for steps, zero in product(np.linspace(11, 22, 100), range(16)):
        scale = (span / steps)[:, None]
        back = (np.clip(np.rint(rows / scale) + zero, 0, 15) - zero) * scale
        best = np.minimum(best, np.square(back - rows).sum(axis=1))
    assert ours.sum() < 1.06 * best.sum()


@settings(max_examples=30, deadline=None)
@given(
    cut=st.integers(1, ROWS - 1),
    blocks=st.sampled_from(CASES),
    columns=st.sampled_from(COLUMNS),
    seed=st.integers(0, 99),
)
def test_any_cut_into_slabs_gives_the_same_bytes(
    cut: int, blocks: Blocks, columns: int, seed: int
) -> None:
    rows = weights(columns, seed=seed)
    whole, parts = (
        pack_rows(rows, blocks),
        [pack_rows(part, blocks) for part in (rows[:cut], rows[cut:])],
    )
    np.testing.assert_array_equal(whole.codes, np.concatenate([p.codes for p in parts]))
    np.testing.assert_array_equal(whole.scales, np.concatenate([p.scales for p in parts]))
    if whole.zero_points is not None:
        joined = [p.zero_points for p in parts if p.zero_points is not None]
        np.testing.assert_array_equal(whole.zero_points, np.concatenate(joined))


@pytest.mark.parametrize("blocks", CASES, ids=str)
@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-30, 1e-42, 1e16])
def test_rows_of_one_value_stay_finite_and_close(value: float, blocks: Blocks) -> None:
    rows = np.full((2, 64), value, np.float32)
    back = unpack_rows(pack_rows(rows, blocks), blocks, columns=64)
    assert np.all(np.isfinite(back))
    np.testing.assert_allclose(back, rows, rtol=0.07, atol=1e-37)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, -2e16])
def test_a_value_that_is_no_weight_is_named(bad: float) -> None:
    rows = weights(64)
    rows[3, 5] = bad
    with pytest.raises(BadValueError) as raised:
        pack_rows(rows, CASES[0])
    assert (raised.value.row, raised.value.column) == (3, 5)
