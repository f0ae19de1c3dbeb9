"""Paired differences: the same tokens under two scalings, and how sure their difference is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ropeconv.longctx.measuring.bands import Losses, standard_error, tokens_at

CLEAR = 2.0  # standard errors that a difference must exceed
NOTABLE = 0.01  # nats; a clear difference below this is of no use


@dataclass(frozen=True)
class Difference:
    """mean: nats a token, negative = better than the other; error: its standard error."""

    mean: float
    error: float

    @property
    def sign(self) -> int:
        """-1 better, 1 worse, 0 no clear difference, as for a NaN."""
        size = abs(self.mean)
        if not (size > NOTABLE and size > CLEAR * self.error):
            return 0
        return -1 if self.mean < 0 else 1

    def __str__(self) -> str:
        return f"{abs(self.mean):.3f} ± {self.error:.3f} nats"


def paired_difference(losses: Losses, other: Losses, start: int, stop: int) -> Difference:
    """`losses` less `other` over the tokens at positions start to stop - 1."""
    mine = tokens_at(losses, start, stop).astype(np.float64)
    delta = mine - tokens_at(other, start, stop)
    return Difference(float(delta.mean()), standard_error(delta))
