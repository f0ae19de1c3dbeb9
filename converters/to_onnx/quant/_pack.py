"""Float rows to the blocks of onnxruntime's operators, with the scales chosen by error.

A block is `size` neighbours of one row: value = (code - zero point) * scale. Codes are unsigned, 4
bits (two a byte, the first in the low half) or 8. Without zero points the operators take
2 ** (bits - 1). One layout serves all: a row of GatherBlockQuantized or QMoE is that row's blocks
of MatMulNBits one after the other (onnxruntime docs/ContribOperators.md).

The choice: a few ranges are tried for each block, each with the scale that is best in least squares
for the codes it gives, and the one with the smallest squared error stays; then codes and scale are
fitted to each other once more. For codes q the best scale is <x, q> / <q, q> and the error
|x|^2 - <x, q>^2 / <q, q>, so no trial has to be rebuilt. Where it is known how much a column
matters (the mean square of what it is multiplied by), every square counts as much.

Shape letters: n rows, c columns, b blocks a row, s block size, m = n * b blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_onnx.quant._types import Blocks
from ropeconv.kit.casts import BadValueError, cast_rows

Float = NDArray[np.float32]
Bytes = NDArray[np.uint8]

CHUNK = 1 << 18  # values worked on at a time: large enough for threads to leave one another alone
# Squares of weights are summed in float32; a weight past this is damage, not training.
LARGEST = 1e16
ROUNDING = 2.0**-11  # of a number to float16
# Ranges tried: by how many codes a block's extremes may lie outside the code range, to be clipped
# (negative: inside). For 4 bits five reach within 2 % of the squared error of sixty; with 8 bits
# the first is as good.
OUTSIDE = {4: (-0.5, 0.2, 0.9, 1.6, 2.4), 8: (0.0,)}


@dataclass(frozen=True)
class Packed:
    """Rows as stored: codes (n, b, s * bits / 8), scales (n, b), zero_points (n, bytes).

    No zero points when symmetric; the last byte of a row's 4-bit ones has an empty high half when b
    is odd.
    """

    codes: Bytes
    scales: Float
    zero_points: Bytes | None


def pack_rows(rows: NDArray[Any], blocks: Blocks, importance: NDArray[Any] | None = None) -> Packed:
    """Quantise (n, c) numbers. importance: (c,) what a squared error in each column costs.

    Rows do not depend on one another, so any cut into slabs gives the same bytes. A last block that
    the row does not fill is filled with zeros. Raises BadValueError for NaN, infinity or a
    magnitude past LARGEST.
    """
    numbers = check_size(cast_rows(rows, "F32"))
    n = len(rows)
    b = blocks.count(rows.shape[1])
    codes = np.empty((n, b, blocks.block_bytes), np.uint8)
    scales = np.empty((n, b), np.float32)
    zeros = np.empty((n, b), np.uint8)
    costs = None if importance is None else column_costs(importance, blocks)
    step = max(1, CHUNK // (b * blocks.size))
    for start in range(0, n, step):
        part = slice(start, min(n, start + step))
        codes[part], scales[part], zeros[part] = _pack(numbers[part], blocks, costs)
    return Packed(codes, scales, None if blocks.symmetric else join_rows(zeros, blocks.bits))


def column_costs(importance: NDArray[Any], blocks: Blocks) -> Float:
    """(s, b) of (c,): each block's sum to its size, so that only what differs inside of it counts.

    A block none of whose columns matters has ones.
    """
    c = len(importance)
    filled = np.zeros(blocks.count(c) * blocks.size)
    filled[:c] = importance
    by_block = filled.reshape(-1, blocks.size)
    mean = by_block.sum(axis=1, keepdims=True) / np.minimum(
        blocks.size, c - np.arange(len(by_block))[:, None] * blocks.size
    )
    usable = np.where(mean > 0, by_block / np.where(mean > 0, mean, 1), 1)
    return np.ascontiguousarray(usable.T, np.float32)


def _pack(numbers: Float, blocks: Blocks, costs: Float | None) -> tuple[Bytes, Float, Float]:
    """Codes (n, b, bytes), scales (n, b) and zero points (n, b), one code each. costs: (s, b)."""
    n, c = numbers.shape
    b = blocks.count(c)
    # a lone block would be summed in another order than one among many
    filled = np.zeros((max(n, 2), b * blocks.size), np.float32)
    filled[:n, :c] = numbers
    # (s, m), so that a sum over a block adds long rows
    x = np.ascontiguousarray(filled.reshape(-1, blocks.size).T)
    repeated = None if costs is None else np.tile(costs, (1, len(filled)))
    scale, zero, q = fit_blocks(x, blocks, repeated)
    np.add(q, zero, out=q)
    codes = _join(q.astype(np.uint8), blocks.bits).T.reshape(-1, b, blocks.block_bytes)
    return codes[:n], scale.reshape(-1, b)[:n], zero.reshape(-1, b)[:n]


def unpack_rows(packed: Packed, blocks: Blocks, *, columns: int) -> Float:
    """(n, columns) numbers as onnxruntime reads them."""
    n, b = packed.scales.shape
    codes = _split(packed.codes.reshape(n, -1), blocks.bits).reshape(n, b, blocks.size)
    if packed.zero_points is None:
        zeros = np.full((n, b), 2 ** (blocks.bits - 1), np.uint8)
    else:
        zeros = _split(packed.zero_points, blocks.bits)[:, :b]
    values = codes.astype(np.float32) - zeros[..., None].astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # a file's scales may be anything
        values *= packed.scales[..., None]
    return np.ascontiguousarray(values.reshape(n, -1)[:, :columns])


def scales_as(scales: Float, dtype: str, blocks: Blocks) -> NDArray[Any]:
    """(n, b) scales in the type `dtype` of a file, rounded once.

    BadValueError for one that float16 cannot hold, and where so many are so small there that the
    rows would be another matrix's: by more than rounding.
    """
    if dtype == scales.dtype.name:
        return scales
    with np.errstate(over="ignore"):
        rounded = scales.astype(dtype)
    lost = np.abs(rounded.astype(np.float32) - scales)
    if np.sqrt(np.square(lost).sum()) > ROUNDING * np.sqrt(np.square(scales).sum()):
        row, block = (int(i) for i in np.unravel_index(np.argmax(lost), lost.shape))
        reason = "is the scale of its block, and too far from what float16 holds; take --type int4"
        raise BadValueError(row, block * blocks.size, float(scales[row, block]), reason)
    return rounded


def check_size(numbers: Float) -> Float:
    """The numbers; BadValueError for one that is damage, not training."""
    if numbers.size and max(-numbers.min(), numbers.max()) > LARGEST:
        row, column = (int(i) for i in np.argwhere(np.abs(numbers) > LARGEST)[0])
        value = float(numbers[row, column])
        reason = "is too large for blocks of codes; take --type fp32"
        raise BadValueError(row, column, value, reason)
    return numbers


def fit_blocks(x: Float, blocks: Blocks, costs: Float | None) -> tuple[Float, Float, Float]:
    """(m,) scales, (m,) zero points, (s, m) codes less zero points, for (s, m) values.

    costs: (s, m), what a squared error in each value costs, or None.
    """
    top = np.float32(2**blocks.bits - 1)
    q = np.empty_like(x)
    best = np.full(x.shape[1], -1.0, np.float32)
    products, squares, zero = (np.zeros_like(best) for _ in range(3))
    weighted = x if costs is None else x * costs
    for trial, point in _trials(x, blocks):
        encode(x, trial, point, top=top, q=q)
        xq, qq = _sums(weighted, q, costs)
        gain = xq * _divide(xq, qq)
        better = gain > best
        for kept, new in ((best, gain), (products, xq), (squares, qq), (zero, point)):
            np.copyto(kept, new, where=better)
    encode(x, _divide(squares, products), zero, top=top, q=q)
    return _divide(*_sums(weighted, q, costs)), zero, q


def _sums(weighted: Float, q: Float, costs: Float | None) -> tuple[Float, Float]:
    """(m,) <x, q> and <q, q>, each in one pass over memory."""
    if costs is None:
        return np.einsum("sm,sm->m", weighted, q), np.einsum("sm,sm->m", q, q)
    return np.einsum("sm,sm->m", weighted, q), np.einsum("sm,sm,sm->m", q, q, costs)


def _trials(x: Float, blocks: Blocks) -> Iterator[tuple[Float, Float]]:
    """Pairs of (m,) inverse scales and (m,) zero points to try on (s, m) values."""
    half = 2.0 ** (blocks.bits - 1)
    top = 2.0**blocks.bits - 1
    low, high = x.min(axis=0), x.max(axis=0)
    if blocks.symmetric:
        extreme = np.where(-low > high, low, high)  # falls on code 0: the side with one code more
        for outside in OUTSIDE[blocks.bits]:
            yield _divide(np.full_like(low, -half - outside), extreme), np.full_like(low, half)
        return
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    for outside in OUTSIDE[blocks.bits]:
        inverse = _divide(np.full_like(low, top + outside), high - low)
        zero = np.rint(np.float32(top / 2) - (low + high) / 2 * inverse)
        yield inverse, np.clip(zero, 0, np.float32(top))


def encode(x: Float, inverse: Float, zero: Float, *, top: np.float32, q: Float) -> None:
    """Codes less zero points into q."""
    np.multiply(x, inverse, out=q)
    np.rint(q, out=q)
    np.maximum(q, -zero, out=q)
    np.minimum(q, top - zero, out=q)


def inverses(scales: Float) -> Float:
    """1 / scale, 0 for a scale of 0."""
    return _divide(np.ones_like(scales), scales)


def _divide(numerator: Float, denominator: Float) -> Float:
    """The quotient, 0 where the denominator is 0 or so small that the quotient overflows."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        quotient: Float = numerator / denominator
    return np.where(np.isfinite(quotient), quotient, np.float32(0)).astype(np.float32, copy=False)


def _join(codes: Bytes, bits: int) -> Bytes:
    """Codes along the first axis, two a byte when they have 4 bits."""
    if bits == 8:
        return codes
    return np.bitwise_or(codes[0::2], np.left_shift(codes[1::2], 4, dtype=np.uint8))


def join_rows(codes: Bytes, bits: int) -> Bytes:
    """(n, codes) as (n, bytes), two a byte when they have 4 bits."""
    if bits == 4 and codes.shape[1] % 2:
        codes = np.pad(codes, ((0, 0), (0, 1)))
    return np.ascontiguousarray(_join(codes.T, bits).T)


def _split(stored: Bytes, bits: int) -> Bytes:
    """(n, k) bytes as (n, codes)."""
    if bits == 8:
        return stored
    return np.stack([stored & 15, stored >> 4], axis=-1).reshape(len(stored), -1)
