"""The universal carrier: any static scaling spelled as LongRoPE with one table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ropeconv.errors import RopeConfigError
from ropeconv.rope.build import find_kind
from ropeconv.rope.scalings.longrope import LongropeParameters
from ropeconv.rope.solve import solve
from ropeconv.rope.spec import Frequencies, Rope


def carry_as_longrope(rope: Rope) -> Rope:
    """`rope` as kind `longrope`: short_factor = long_factor = rho, explicit factor and
    attention_factor.

    A LongRoPE with two tables keeps both. Raises RopeConfigError for kinds that follow the running
    length and for pairs that do not rotate (a divisor cannot say frequency 0).
    """
    if not find_kind(rope.kind).static:
        raise RopeConfigError(
            f"{rope.kind} follows the running length, so no table carries it; take ntk instead"
        )
    return as_longrope(rope, frequencies=solve(rope))


def as_longrope(rope: Rope, *, frequencies: Frequencies) -> Rope:
    """The longrope that keeps theta, dims and contexts of `rope` and computes `frequencies`."""
    rho = frequencies.rho
    long_rho = rho if frequencies.long_rho is None else frequencies.long_rho
    if not (np.isfinite(rho).all() and np.isfinite(long_rho).all()):
        raise RopeConfigError(
            f"{rope.kind} leaves pairs without rotation; longrope cannot say frequency 0"
        )
    parameters = LongropeParameters(
        short_factor=tuple(rho.tolist()),
        long_factor=tuple(long_rho.tolist()),
        factor=rope.context / rope.original_context,
        attention_factor=frequencies.attention_factor,
    )
    return replace(rope, kind="longrope", parameters=parameters)
