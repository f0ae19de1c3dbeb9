"""Candidates of a search: one divisor for each rotary pair and one magnitude, and how a few numbers describe them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.extend import ScalingRequest
from ropeconv.longctx.rows import Row, main_frequencies, method_rows
from ropeconv.model import Model
from ropeconv.prepare import scale

SEEDS = ("pi", "ntk", "ntk-critical", "ntk-parts", "yarn", "llama3")
HEADROOM = 1.25  # times s: the largest divisor of LongRoPE's space
KNOTS = 8
MAGNITUDE = 0.2  # times ln s: the largest excess of the magnitude over 1; YaRN's is half of it
DECIMALS = 4
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """rho: divisors, fast pairs first, never falling; magnitude: of cos and sin; plain_tokens: LongRoPE's n-hat."""

    rho: tuple[float, ...]
    magnitude: float
    plain_tokens: int = 0

    @property
    def key(self) -> str:
        """Its name in the history of a search."""
        return hashlib.sha256(repr((self.rho, self.magnitude, self.plain_tokens)).encode()).hexdigest()[:20]


def make_candidate(rho: Sequence[float] | Vector, magnitude: float, *, plain_tokens: int = 0) -> Candidate:
    """Rounded as it will be written."""
    return Candidate(tuple(round(float(r), DECIMALS) for r in rho), round(float(magnitude), DECIMALS), plain_tokens)


def rope_parameters(candidate: Candidate, model: Model, factor: float) -> dict[str, Any]:
    """Hugging Face's rope_parameters of the candidate: LongRoPE with one table for every length, which each target carries."""
    return {
        "rope_type": "longrope",
        "factor": factor,
        "short_factor": list(candidate.rho),
        "long_factor": list(candidate.rho),
        "attention_factor": candidate.magnitude,
        "original_max_position_embeddings": model.main_rope.original_context,
    }


def apply_candidate(candidate: Candidate, model: Model, factor: float) -> Model:
    """The model under the candidate."""
    return scale(model, ScalingRequest(kind=None, huggingface=rope_parameters(candidate, model, factor)))


def seed_rows(model: Model, factor: float) -> list[Row]:
    """The known methods at `factor`, those that this model takes."""
    return [row for row in method_rows(model, SEEDS, [factor]) if not row.refusal]


def read_candidate(model: Model) -> Candidate:
    """What a scaled model's full-attention layers turn by."""
    found = main_frequencies(model)
    return make_candidate(np.maximum.accumulate(found.rho), found.attention_factor)


@dataclass(frozen=True)
class Space:
    """A monotone curve of ln rho over the pairs through KNOTS values, and the magnitude: numbers from 0 to 1."""

    pairs: int
    factor: float

    @property
    def size(self) -> int:
        """Numbers that describe a candidate."""
        return len(self._knots) + 1

    @property
    def _knots(self) -> Vector:
        return np.linspace(0, self.pairs - 1, min(KNOTS, self.pairs))

    @property
    def _top(self) -> float:
        return math.log(HEADROOM * self.factor)

    def decode(self, x: Vector) -> Candidate:
        """The candidate of (size,) numbers; those outside 0 to 1 count as the nearest inside."""
        inside = np.clip(x, 0.0, 1.0)
        curve = np.interp(np.arange(self.pairs), self._knots, np.maximum.accumulate(inside[:-1]))
        return make_candidate(np.exp(curve * self._top), 1.0 + inside[-1] * MAGNITUDE * math.log(self.factor))

    def encode(self, candidate: Candidate) -> Vector:
        """The numbers whose curve is nearest at the knots."""
        curve = np.log(candidate.rho) / self._top
        excess = (candidate.magnitude - 1.0) / (MAGNITUDE * math.log(self.factor))
        numbers: Vector = np.clip(np.append(np.interp(self._knots, np.arange(self.pairs), curve), excess), 0.0, 1.0)
        return numbers


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's: 1 when both order the same, NaN for fewer than 3 values."""
    if len(first) < 3:
        return float("nan")
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
