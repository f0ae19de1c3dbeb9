"""Codes times a scale for all, for a row, for a group of inputs, or for a block: numbers
themselves, or integers in words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ropeconv.model import Rows, Tensor
from ropeconv.sources.codes import NO_CODES, Codes, Groups, Integers, OtherCodes
from ropeconv.sources.quantised._codes import codes, dequantise, floats, gathered, scales, unpack
from ropeconv.sources.quantised._grouped import WORD

EIGHT, MIDDLE = 8, 128  # bits of a code, and what makes a signed one unsigned
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
        return gathered(self.groups(start, stop), self.block[1], columns)

    def groups(self, start: int, stop: int) -> Rows:
        """(stop - start, columns / wide): a number for every group of a row's columns."""
        high = self.block[0]
        first, last = start // high, (stop - 1) // high + 1
        numbers = self.read(self.tensor, first, last).reshape(last - first, -1)
        rows: Rows = numbers[np.arange(start, stop) // high - first]
        return rows


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


@dataclass(frozen=True)
class Packed:
    """(rows, columns) codes in words; zero: as the codes are stored, None where they are
    symmetric.
    """

    base: Tensor
    columns: int
    bits: int
    scale: Grid
    zero: Grid | None

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, columns) float32."""
        return dequantise(self.groups(start, stop), self.scale.block[1], self.bits)

    def groups(self, start: int, stop: int) -> Groups:
        """The codes of these rows, and the scales and zeros of their groups."""
        numbers = unpack(codes(self.base, start, stop), self.bits, self.columns)
        return replace(self.grid(start, stop), codes=numbers)

    def grid(self, start: int, stop: int) -> Groups:
        """Scales and zeros alone."""
        zeros = None if self.zero is None else self.zero.groups(start, stop).astype(np.uint8)
        return Groups(NO_CODES, self.scale.groups(start, stop), zeros)

    @property
    def made_of(self) -> Integers:
        """The codes."""
        zeros = self.zero is not None
        group = self.scale.block[1]
        return Integers(self.bits, group, zeros=zeros, read=self.groups, grid=self.grid)


@dataclass(frozen=True)
class PackedZeros:
    """Zeros that are packed along the outputs: (outputs * bits / 32, groups)."""

    bits: int

    def read(self, tensor: Tensor, start: int, stop: int) -> NDArray[np.float32]:
        """(stop - start, groups)."""
        first, last = start // WORD, -(-stop // WORD)
        end = min(last * self.bits, tensor.shape[0])
        words = codes(tensor, first * self.bits, end).T
        zeros = unpack(words, self.bits, stop - first * WORD)
        return zeros[:, start - first * WORD :].T.astype(np.float32)


@dataclass(frozen=True)
class Plain8:
    """Signed codes of 8 bits, as unsigned ones."""

    view: Scaled

    def groups(self, start: int, stop: int) -> Groups:
        """The codes of these rows, and the scales and zeros of their groups."""
        numbers = codes(self.view.base, start, stop).view(np.uint8) ^ np.uint8(MIDDLE)
        return replace(self.grid(start, stop), codes=numbers)

    def grid(self, start: int, stop: int) -> Groups:
        """Scales and zeros alone."""
        zeros = None
        if self.view.zero is not None:
            zeros = (self.view.zero.groups(start, stop) + MIDDLE).astype(np.uint8)
        return Groups(NO_CODES, self.view.scale.groups(start, stop), zeros)

    @property
    def made_of(self) -> Codes:
        """The codes, where their zeros are such codes too."""
        zero = self.view.zero
        if zero is not None and zero.tensor.dtype != "I8":
            return OtherCodes(f"8-bit codes with zeros of {zero.tensor.dtype}")
        group = self.view.scale.block[1]
        zeros = zero is not None
        return Integers(EIGHT, group, zeros=zeros, read=self.groups, grid=self.grid)
