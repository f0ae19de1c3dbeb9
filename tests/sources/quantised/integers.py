"""Integers in words, written bit by bit, and quantisation by groups of inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

WORD = 32


def packed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """(rows, columns * bits / 32) int32: bit b of code i is bit i * bits + b of its row's words."""
    rows, columns = codes.shape
    words = -(-columns * bits // WORD)
    stream = torch.zeros(rows, words * WORD, dtype=torch.int64)
    for place in range(columns):
        for bit in range(bits):
            stream[:, place * bits + bit] = (codes[:, place].long() >> bit) & 1
    weights = torch.tensor([1 << bit for bit in range(WORD)])
    numbers = (stream.reshape(rows, words, WORD) * weights).sum(-1)
    return torch.where(numbers >= 1 << 31, numbers - (1 << 32), numbers).to(torch.int32)


@dataclass(frozen=True)
class Grouped:
    """codes (outputs, inputs); scales, zeros (outputs, groups); index: the group of every input."""

    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor
    index: torch.Tensor

    @property
    def meant(self) -> torch.Tensor:
        """(outputs, inputs) float32, which in the scales' own type is what libraries compute in
        it.
        """
        centred = self.codes - self.zeros[:, self.index]
        scales = self.scales[:, self.index]
        exact = centred.float() * scales.float()
        assert torch.equal(exact.to(scales.dtype), centred.to(scales.dtype) * scales)
        return exact


def quantise(
    weight: torch.Tensor,
    *,
    bits: int,
    index: torch.Tensor,
    symmetric: bool = False,
    dtype: torch.dtype = torch.float16,
) -> Grouped:
    """Codes 0 to 2^bits - 1 of (outputs, inputs), a group of inputs at a time."""
    top = 2**bits - 1
    scales, zeros = [], []
    for group in range(int(index.max()) + 1):
        own = weight[:, index == group]
        low, high = own.amin(1).clamp(max=0), own.amax(1).clamp(min=0)
        if symmetric:
            high = torch.maximum(high, -low)
            low = -high
        scale = ((high - low) / top).clamp(min=1e-6).to(dtype)
        scales.append(scale)
        middle = torch.full_like(low, (top + 1) // 2)
        zeros.append(middle if symmetric else torch.round(-low / scale.float()))
    grid, points = torch.stack(scales, 1), torch.stack(zeros, 1).clamp(0, top).long()
    codes = torch.round(weight / grid.float()[:, index] + points[:, index]).clamp(0, top).long()
    return Grouped(codes, grid, points, index)
