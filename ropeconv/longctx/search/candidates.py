"""Candidates of a search: one divisor for each rotary pair and one magnitude of cos and sin."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.extend import ScalingRequest
from ropeconv.longctx.measuring.variants import Variant, method_variants
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
    """rho: divisors, fast pairs first, never falling; magnitude: of cos and sin.

    plain_tokens: LongRoPE's n-hat, tokens at the start of a text that turn unscaled.
    """

    rho: tuple[float, ...]
    magnitude: float
    plain_tokens: int = 0

    @property
    def key(self) -> str:
        """Its name in the history of a search."""
        said = repr((self.rho, self.magnitude, self.plain_tokens))
        return hashlib.sha256(said.encode()).hexdigest()[:20]


def make_candidate(
    rho: Sequence[float] | Vector, magnitude: float, *, plain_tokens: int = 0
) -> Candidate:
    """Rounded as it will be written."""
    rounded = tuple(round(float(r), DECIMALS) for r in rho)
    return Candidate(rounded, round(float(magnitude), DECIMALS), plain_tokens)


def rope_parameters(candidate: Candidate, model: Model, factor: float) -> dict[str, Any]:
    """Hugging Face's rope_parameters of the candidate.

    LongRoPE with one table for every length, which each target carries.
    """
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
    values = rope_parameters(candidate, model, factor)
    return scale(model, ScalingRequest(kind=None, huggingface=values))


def seed_variants(model: Model, factor: float) -> list[Variant]:
    """The model under the known methods at `factor`, those that it takes."""
    return [found for found in method_variants(model, SEEDS, [factor]) if not found.refusal]


def read_candidate(model: Model) -> Candidate:
    """What a scaled model's full-attention layers turn by."""
    found = model.main_frequencies
    return make_candidate(np.maximum.accumulate(found.rho), found.attention_factor)


@dataclass(frozen=True)
class Space:
    """A monotone curve of ln rho over the pairs through KNOTS values, and the magnitude.

    Each is a number from 0 to 1.
    """

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
        """ln of the largest divisor."""
        return math.log(HEADROOM * self.factor)

    @property
    def _excess(self) -> float:
        """The largest excess of the magnitude over 1."""
        return MAGNITUDE * math.log(self.factor)

    def decode(self, x: Vector) -> Candidate:
        """The candidate of (size,) numbers; those outside 0 to 1 count as the nearest inside."""
        inside = np.clip(x, 0.0, 1.0)
        rising = np.maximum.accumulate(inside[:-1])
        curve = np.interp(np.arange(self.pairs), self._knots, rising)
        return make_candidate(np.exp(curve * self._top), 1.0 + inside[-1] * self._excess)

    def encode(self, candidate: Candidate) -> Vector:
        """The numbers whose curve is nearest at the knots."""
        curve = np.log(candidate.rho) / self._top
        excess = (candidate.magnitude - 1.0) / self._excess
        knots = np.interp(self._knots, np.arange(self.pairs), curve)
        numbers: Vector = np.clip(np.append(knots, excess), 0.0, 1.0)
        return numbers


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's: 1 when both order the same, NaN for fewer than 3 values."""
    if len(first) < 3:
        return float("nan")
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
