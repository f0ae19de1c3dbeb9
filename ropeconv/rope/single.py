"""Frequencies in single precision, rounded where transformers rounds.

transformers raises theta to float32 exponents 2i/d and inverts the float32 powers. A float64 result
rounded once is nearer to the paper and differs by up to 4e-7, which at position 131072 turns a pair
by 0.05 radians: a file that is compared with PyTorch carries PyTorch's rounding. Source:
transformers modeling_rope_utils.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ropeconv.rope.build import find_kind
from ropeconv.rope.solve import solve
from ropeconv.rope.spec import Array, Rope

Single = NDArray[np.float32]


def single_precision(rope: Rope) -> tuple[Single, Single | None]:
    """((d/2,) inv_freq, (d/2,) LongRoPE's long inv_freq or None) of `rope`, radians a token.

    Equal to transformers' bit for bit but for single pairs, which are one step of float32 off.
    """
    solved = solve(rope)
    drift = _drift(
        float(find_kind(rope.kind).huggingface(rope)["rope_theta"]), 2 * len(solved.inv_freq)
    )
    long = (
        None if solved.long_inv_freq is None else (solved.long_inv_freq * drift).astype(np.float32)
    )
    return (solved.inv_freq * drift).astype(np.float32), long


def _drift(theta: float, d: int) -> Array:
    """(d/2,) what transformers' rounding multiplies theta ** (-2i/d) by."""
    exponents = np.arange(0, d, 2, dtype=np.float32) / np.float32(d)
    powers = np.power(np.float64(theta), exponents.astype(np.float64)).astype(np.float32)
    exact = np.power(theta, -np.arange(0, d, 2, dtype=np.float64) / d)
    return np.asarray((np.float32(1) / powers).astype(np.float64) / exact, np.float64)
