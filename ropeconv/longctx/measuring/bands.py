"""Losses by position: bands of equal width, their means, perplexities and standard errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BANDS = 8  # of a text, where no width is asked for
BLOCK = 128  # tokens; losses of neighbours are correlated, means of such blocks hardly
BLOCKS = 8  # at least, where the text is short

Losses = NDArray[np.float32]
"""(n - 1,) nats: the loss of every token of a text but the first."""


@dataclass(frozen=True)
class LossBand:
    """The mean loss of the tokens at positions start <= p < stop.

    loss: nats a token; error: its standard error over blocks of tokens; tokens: how many.
    """

    start: int
    stop: int
    loss: float
    error: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return float(np.exp(self.loss))


def band_width(losses: Losses) -> int:
    """Positions of each of BANDS bands over the text."""
    return -(-(len(losses) + 1) // BANDS)


def split_bands(losses: Losses, width: int) -> list[LossBand]:
    """Bands of `width` positions, the last one shorter where they do not divide."""
    end = len(losses) + 1
    return [measure_band(losses, start, min(start + width, end)) for start in range(0, end, width)]


def measure_band(losses: Losses, start: int, stop: int) -> LossBand:
    """The tokens at positions start to stop - 1."""
    part = tokens_at(losses, start, stop).astype(np.float64)
    return LossBand(start, stop, float(part.mean()), standard_error(part), len(part))


def tokens_at(losses: Losses, start: int, stop: int) -> Losses:
    """The losses of the tokens at positions start to stop - 1; a text's first token has none."""
    return losses[max(start - 1, 0) : stop - 1]


def standard_error(values: NDArray[np.float64]) -> float:
    """Of the mean of a series whose neighbours are correlated, from the spread of block means.

    NaN for fewer than 2 values.
    """
    count = min(len(values), max(BLOCKS, len(values) // BLOCK))
    if count < 2:
        return float("nan")
    means = np.array([block.mean() for block in np.array_split(values, count)])
    return float(means.std(ddof=1) / np.sqrt(count))
