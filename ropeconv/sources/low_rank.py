"""Matrices with a low-rank adapter merged in, in float32, row by row as they are asked for.

Letters as in LoRA (arXiv 2106.09685): W' = W + s B A. See `ropeconv.model.Tensor` for the contract.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ropeconv.errors import CheckpointError
from ropeconv.kit.views import as_bytes
from ropeconv.model import Rows, Tensor

Float = NDArray[np.float32]


@dataclass(frozen=True)
class LowRank:
    """W + s B A of a linear layer; with a magnitude m, each row of that at the length that m has
    for it (DoRA, arXiv 2402.09353).

    base: W (out, in); a: (r, in); b: (out, r); magnitude: (out,).
    """

    name: str
    base: Tensor
    a: Tensor
    b: Tensor
    scale: float
    magnitude: Tensor | None = None
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """The base's."""
        return self.base.shape

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, in) float32 numbers."""
        # A is read anew for every slab: kept, the adapters of all layers would stay in memory
        merged = _sum(
            _float(self.base, start, stop),
            _float(self.b, start, stop),
            _float(self.a, 0, self.a.shape[0]),
            self.scale,
        )
        if self.magnitude is None:
            return merged
        length = np.linalg.norm(merged, axis=1)
        if not length.all():
            row = start + int(np.argmin(length))
            raise CheckpointError(
                f"tensor {self.name}, row {row}: has no length, and DoRA divides by it"
            )
        merged *= (_float(self.magnitude, start, stop) / length)[:, None]
        return merged

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Their bytes."""
        return as_bytes(self.rows(start, stop))


@dataclass(frozen=True)
class LowRankEmbedding:
    """W + s (B A)^T of an embedding. base: W (vocab, e); a: (r, vocab); b: (e, r)."""

    name: str
    base: Tensor
    a: Tensor
    b: Tensor
    scale: float
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """The base's."""
        return self.base.shape

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, e) float32 numbers."""
        columns = self.a.rows(0, self.a.shape[0])[:, start:stop].astype(np.float32)
        b = _float(self.b, 0, self.b.shape[0])
        return _sum(_float(self.base, start, stop), columns.T, b.T, self.scale)

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Their bytes."""
        return as_bytes(self.rows(start, stop))


def _sum(base: Float, b: Float, a: Float, scale: float) -> Float:
    """base + scale b a; what is not finite is found and named by whoever writes it."""
    with np.errstate(over="ignore", invalid="ignore"):
        merged: Float = base + (b @ a) * np.float32(scale)
    return merged


def _float(tensor: Tensor, start: int, stop: int) -> Float:
    return tensor.rows(start, stop).astype(np.float32)
