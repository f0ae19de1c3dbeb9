"""From a `Rope` to numbers, and the checks that make a `Rope` one that has numbers."""

from __future__ import annotations

import numpy as np

from ropeconv.errors import RopeConfigError
from ropeconv.rope import _checks
from ropeconv.rope.build import find_kind
from ropeconv.rope.spec import Frequencies, Rope


def validate(rope: Rope) -> None:
    """Raise RopeConfigError, in one line, when `rope` has no well-defined frequencies."""
    kind = find_kind(rope.kind)
    _checks.number("rope_theta", rope.theta, above=1.0)
    _checks.whole("head_dim", rope.head_dim, least=2)
    _checks.whole("original context", rope.original_context)
    _checks.whole("context", rope.context)
    partial = _checks.number("partial_rotary_factor", rope.partial_rotary_factor)
    if partial > 1.0 or rope.rotary_dim < 2 or rope.rotary_dim % 2:
        raise RopeConfigError(
            f"head_dim {rope.head_dim} x partial_rotary_factor {partial:g} rotates "
            f"{rope.rotary_dim} dimensions; "
            f"an even number from 2 to head_dim must rotate"
        )
    if not isinstance(rope.parameters, kind.parameters):
        raise RopeConfigError(
            f"{kind.name} takes {kind.parameters.__name__}, not {type(rope.parameters).__name__}; "
            f"make them with make_parameters"
        )
    if kind.check is not None:
        kind.check(rope)


def solve(rope: Rope, *, length: int | None = None) -> Frequencies:
    """Frequencies of `rope` in float64.

    length: running length in tokens; it matters for `dynamic` alone. None gives the frequencies at
    or below the trained
        context. LongRoPE answers with both of its tables whatever the length.
    Raises RopeConfigError when the rope is not valid or its numbers leave the range of a float.
    """
    validate(rope)
    kind = find_kind(rope.kind)
    follow = None if length is None else kind.solve_at
    found = kind.solve(rope) if follow is None else follow(rope, _checks.whole("length", length))
    tables = [found.inv_freq, found.base_inv_freq] + (
        [] if found.long_inv_freq is None else [found.long_inv_freq]
    )
    if not all(np.isfinite(table).all() for table in tables):
        raise RopeConfigError(
            f"{kind.name} gives frequencies that are not finite; check factor and rope_theta"
        )
    return found


def is_scaled(rope: Rope) -> bool:
    """Whether the numbers, or the claimed context, differ from those of the unscaled embedding."""
    if rope.context != rope.original_context or not find_kind(rope.kind).static:
        return True
    found = solve(rope)
    turning = found.inv_freq != 0.0
    same = np.allclose(found.rho[turning], 1.0, rtol=1e-12, atol=0.0)
    return found.long_inv_freq is not None or found.attention_factor != 1.0 or not same


def trained_in_doubt(rope: Rope) -> bool:
    """Whether the source scales and gives one length, which may be the trained or the extended one:
    nothing written states it as the trained one.
    """
    known = rope.trained_known or rope.context != rope.original_context
    return not known and rope.kind != "default" and not find_kind(rope.kind).needs_original
