"""Losses by position: bands of equal width, their means, perplexities and standard errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 128  # tokens; losses of neighbours are correlated, means of such blocks hardly
BLOCKS = 8  # at least, where the text is short


@dataclass(frozen=True)
class Band:
    """Positions start <= p < stop. loss: mean, nats; error: its standard error over blocks of tokens; tokens: how many."""

    start: int
    stop: int
    loss: float
    error: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return float(np.exp(self.loss))


def split_bands(losses: NDArray[np.float32], width: int) -> list[Band]:
    """Bands of `width` positions. losses: (n - 1,), of the tokens at positions 1 to n - 1."""
    edges = range(0, len(losses) + 1, width)
    return [measure_band(losses, start, min(start + width, len(losses) + 1)) for start in edges]


def measure_band(losses: NDArray[np.float32], start: int, stop: int) -> Band:
    """The tokens at positions start to stop - 1; the first token of a text has no loss."""
    part = losses[max(start - 1, 0) : stop - 1].astype(np.float64)
    return Band(start, stop, float(part.mean()), standard_error(part), len(part))


def standard_error(values: NDArray[np.float64]) -> float:
    """Of the mean of a series whose neighbours are correlated, from the spread of block means; NaN for fewer than 2 values."""
    count = min(len(values), max(BLOCKS, len(values) // BLOCK))
    if count < 2:
        return float("nan")
    means = np.array([block.mean() for block in np.array_split(values, count)])
    return float(means.std(ddof=1) / np.sqrt(count))
