"""Codes of 4 or 8 bits whose errors make up for one another: GPTQ (Frantar et al. 2022, algorithm
1; arXiv 2210.17323), with the scales of a block chosen when its first column is reached.

What a matrix W is worth is W x for the inputs x that it meets, so the error of codes Q is
tr((W - Q) H (W - Q)^T) with H the mean of x x^T. Column by column, what a code is off by is taken
from the columns after it, as far as they can bear it: by the rows of U with U^T U = H^-1.

Shape letters as in _pack.py; g groups of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_onnx.quant._pack import (
    Float,
    Packed,
    check_size,
    column_costs,
    encode,
    fit_blocks,
    inverses,
    join_rows,
)
from converters.to_onnx.quant._types import Blocks
from ropeconv.kit.casts import cast_rows

DAMPING = 0.01  # of the mean diagonal, added to it: the paper's


@dataclass(frozen=True)
class Feedback:
    """What the columns of a matrix owe one another.

    groups: for neighbours that error is fed back among, (first column, upper triangular U (k, k)
    float32 of their own moments); importance: (c,) mean squares of the inputs.
    """

    groups: Sequence[tuple[int, Float]]
    importance: Float


def solve_feedback(moments: Sequence[NDArray[Any]]) -> Feedback:
    """moments: of neighbouring columns, group after group, sums of x x^T (k, k).

    Columns that meet nothing but zeros are rounded to the nearest code.
    """
    groups = []
    first = 0
    for own in moments:
        groups.append((first, _upper(np.array(own, np.float64))))
        first += len(own)
    diagonal = np.concatenate([np.diagonal(own) for own in moments])
    return Feedback(groups, diagonal.astype(np.float32))


def _upper(moments: NDArray[np.float64]) -> Float:
    """U of damped moments."""
    diagonal = np.einsum("kk->k", moments)  # a view
    unseen = diagonal <= 0
    diagonal[unseen] = 1.0
    diagonal += DAMPING * diagonal[~unseen].mean() if not unseen.all() else 0.0
    return np.ascontiguousarray(np.linalg.cholesky(np.linalg.inv(moments)).T, np.float32)


def feed_back_rows(rows: NDArray[Any], blocks: Blocks, feedback: Feedback) -> Packed:
    """Quantise (n, c) numbers, each row by itself.

    Groups are whole blocks. BadValueError as pack_rows has it.
    """
    left = np.array(check_size(cast_rows(rows, "F32")))  # what is still to be made up for
    n, c = left.shape
    b = blocks.count(c)
    codes = np.zeros((n, b * blocks.size), np.uint8)
    scales, zeros = np.empty((n, b), np.float32), np.empty((n, b), np.uint8)
    costs = column_costs(feedback.importance, blocks)
    for first, upper in feedback.groups:
        end = first + len(upper)
        for start in range(first, end, blocks.size):
            number, stop = start // blocks.size, min(end, start + blocks.size)
            part = slice(start - first, stop - first)
            found, errors = _block(left[:, start:stop], blocks, upper[part, part], costs[:, number])
            codes[:, start : start + blocks.size] = found.codes
            scales[:, number], zeros[:, number] = found.scales, found.zeros
            left[:, stop:end] -= errors @ upper[part, stop - first :]
    packed = join_rows(codes, blocks.bits).reshape(n, b, -1)
    return Packed(packed, scales, None if blocks.symmetric else join_rows(zeros, blocks.bits))


@dataclass(frozen=True)
class _Block:
    """codes (n, s), scales and zero points (n,)."""

    codes: NDArray[np.uint8]
    scales: Float
    zeros: Float


def _block(left: Float, blocks: Blocks, upper: Float, costs: Float) -> tuple[_Block, Float]:
    """One block of every row, and (n, k) what each of its columns is off by, over U's diagonal.

    left: (n, k <= s) numbers, which are changed; costs: (s,).
    """
    n, k = left.shape
    x = np.zeros((blocks.size, n), np.float32)
    x[:k] = left.T
    scale, zero, _ = fit_blocks(x, blocks, np.repeat(costs[:, None], n, axis=1))
    inverse, top = inverses(scale), np.float32(2**blocks.bits - 1)
    codes = np.repeat(zero.astype(np.uint8)[:, None], blocks.size, axis=1)
    errors = np.empty((n, k), np.float32)
    q = np.empty(n, np.float32)
    for column in range(k):
        encode(x[column], inverse, zero, top=top, q=q)
        codes[:, column] = (q + zero).astype(np.uint8)
        off = (x[column] - q * scale) / upper[column, column]
        x[column + 1 : k] -= upper[column, column + 1 :, None] * off
        errors[:, column] = off
    return _Block(codes, scale, zero), errors
