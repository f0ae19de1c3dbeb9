"""Codes that are numbers themselves, times a scale for all, for a row, or for a block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ropeconv.model import Rows, Tensor
from ropeconv.sources.quantised._codes import floats, gathered, scales

Read = Callable[[Tensor, int, int], NDArray[np.float32]]


@dataclass(frozen=True)
class Grid:
    """One number for every block of `block` = (rows, columns) of a matrix.

    read: (tensor, start, stop) -> float32 rows of the grid.
    """

    tensor: Tensor
    block: tuple[int, int]
    read: Read = scales

    def rows(self, start: int, stop: int, columns: int) -> Rows:
        """(stop - start, columns) of the matrix, or (stop - start, 1) where a row has one."""
        high, wide = self.block
        first, last = start // high, (stop - 1) // high + 1
        numbers = self.read(self.tensor, first, last).reshape(last - first, -1)
        return gathered(numbers[np.arange(start, stop) // high - first], wide, columns)


@dataclass(frozen=True)
class Scaled:
    """(rows, columns) of (code - zero) * scale in float32."""

    base: Tensor
    scale: Grid
    zero: Grid | None = None

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, columns) float32."""
        numbers = floats(self.base, start, stop)
        columns = self.base.shape[1]
        if self.zero is not None:
            numbers -= self.zero.rows(start, stop, columns)
        numbers *= self.scale.rows(start, stop, columns)
        return numbers


def block_of(
    shape: tuple[int, int], grid: tuple[int, ...], block: tuple[int, int] | None
) -> tuple[int, int] | None:
    """(rows, columns) that one number of a grid of this shape stands for in a matrix of `shape`.

    block: as stated, None where a number is said to stand for the matrix or a row. None where the
    grid does not fit that.
    """
    rows, columns = shape
    if block is not None:
        fits = grid == (-(-rows // block[0]), -(-columns // block[1]))
        return (min(block[0], rows), min(block[1], columns)) if fits else None
    if all(size == 1 for size in grid):
        return rows, columns
    return (1, columns) if grid in ((rows,), (rows, 1)) else None
