"""Waist 1: what a rotary embedding is, as values.

A config becomes a `Rope`, `solve` turns it into `Frequencies`, and converters, the proof and
reports read those. Only `ropeconv/rope/` knows a formula. Every static method is a vector of
divisors rho (one per rotary pair) and a magnitude m: inv_freq = base_inv_freq / rho, and cos and
sin are multiplied by m = attention_factor.

Symbols (as in the papers): d rotary_dim, b theta, L original_context, L' context, s = L'/L factor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rope:
    """The rotary embedding of one layer type.

    `parameters` is an instance of the dataclass that the scaling kind declares (see
    `ScalingKind.parameters`). trained_known: whether original_context was said as such, by the
    source or the user, and is not just the one length that there is. composed: the kinds that were
    multiplied into this one, in order.
    """

    kind: str
    theta: float
    head_dim: int
    original_context: int
    context: int
    parameters: Any
    partial_rotary_factor: float = 1.0
    trained_known: bool = field(default=False, compare=False)
    composed: tuple[str, ...] = field(default=(), compare=False)

    @property
    def spoken(self) -> str:
        """Its kind, or those that the user composed."""
        return " composed with ".join(self.composed) or self.kind

    @property
    def rotary_dim(self) -> int:
        """Dimensions of a head that rotate (even): d."""
        return int(self.head_dim * self.partial_rotary_factor)


@dataclass(frozen=True)
class Frequencies:
    """Solved rotary frequencies, float64; round once, at the edge.

    inv_freq: (d/2,) radians per token, for sequences up to `switch_context` (any length when that
    is None). base_inv_freq: (d/2,) theta ** (-2i/d), before any scaling. attention_factor:
    multiplier of cos and sin. long_inv_freq: (d/2,) used for every token once the sequence is
    longer than `switch_context` (LongRoPE), else None.
    """

    inv_freq: Array
    base_inv_freq: Array
    attention_factor: float
    long_inv_freq: Array | None = None
    switch_context: int | None = None

    @property
    def rho(self) -> Array:
        """(d/2,) divisors base_inv_freq / inv_freq; infinite for a pair that does not rotate."""
        return _divide(self.base_inv_freq, self.inv_freq)

    @property
    def long_rho(self) -> Array | None:
        """(d/2,) divisors of the long table, or None."""
        return (
            None if self.long_inv_freq is None else _divide(self.base_inv_freq, self.long_inv_freq)
        )


def _divide(base: Array, scaled: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.asarray(base / scaled, dtype=np.float64)


@dataclass(frozen=True)
class ScalingKind:
    """One way to scale a rotary embedding: the declaration `SCALING` of a module in
    `rope/scalings/`.

    name: ropeconv's name, what `--scaling` takes. rope_types: the `rope_type` spellings of Hugging
    Face configs that mean it (may be empty). parameters: frozen dataclass; its fields are the
    Hugging Face keys that the kind takes beside rope_type, rope_theta. solve: Rope -> Frequencies.
    huggingface: Rope -> the `rope_parameters` dict (with rope_theta) from which transformers
    computes the same numbers. by_factor: (Rope, factor, extra parameters) -> the parameters that
    make the unscaled Rope `factor` times longer. static: False when no fixed table holds the
    numbers, because they follow the running length (`dynamic`); LongRoPE's two tables are known
    beforehand, and `Frequencies.switch_context` says when the second one starts.
    source: paper or specification. check: Rope -> None, raises RopeConfigError; for what the
    parameters cannot check alone (list lengths, smallest d). solve_at: (Rope, running length in
    tokens) -> Frequencies, for kinds that are not static. frozen_advice: Rope -> what to do where
    one table must hold the numbers, for kinds that are not static. needs_original: transformers
    reads `original_max_position_embeddings` in the parameters of this kind. spoken: what users call
    the kind where that is not its name ("pi"). by_factor_alone: whether a factor makes a method of
    it, with the `example` where it needs other values too. example: (Rope, factor) -> parameters
    beside the factor, for kinds that have no defaults of their own. nominal: the factor may exceed
    L'/L, because the kind reaches less than s L.
    """

    name: str
    rope_types: tuple[str, ...]
    parameters: type
    solve: Callable[[Rope], Frequencies]
    huggingface: Callable[[Rope], dict[str, Any]]
    by_factor: Callable[[Rope, float, Mapping[str, Any]], Any]
    static: bool
    source: str
    check: Callable[[Rope], None] | None = None
    solve_at: Callable[[Rope, int], Frequencies] | None = None
    frozen_advice: Callable[[Rope], str] | None = None
    needs_original: bool = False
    spoken: str | None = None
    by_factor_alone: bool = True
    example: Callable[[Rope, float], Mapping[str, Any]] | None = None
    nominal: bool = False

    def example_parameters(self, rope: Rope, factor: float) -> Mapping[str, Any]:
        """What `example` gives for the unscaled `rope`; nothing for kinds that have defaults of
        their own.
        """
        return {} if self.example is None else self.example(rope, factor)
