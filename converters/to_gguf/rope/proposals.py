"""Ways to say a rotary embedding in a GGUF file: keys alone, or a divisor for each pair.

They are proposals: whether llama.cpp then computes the model's numbers is judged in carry.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.file.keys import KeyValue, float32, string
from converters.to_gguf.rope.loader import FREQS, LONG, SHORT, STILL, Loader
from ropeconv.rope.build import find_kind
from ropeconv.rope.solve import solve
from ropeconv.rope.spec import Frequencies, Rope

RTOL = 1e-6  # float32 storage of base, factor and tables moves a frequency by 1e-7

Table = NDArray[np.float32]


@dataclass(frozen=True)
class Proposal:
    """One way to say a rotary embedding. why: one clause. magnitude: R, left out where it is 1.

    scaling: keys under `rope.scaling`.
    """

    why: str
    base: float
    magnitude: float
    scaling: Mapping[str, float | str]
    tables: Mapping[str, Table]

    @property
    def by_tables(self) -> bool:
        """Whether a table says something."""
        return any(np.any(table != 1.0) for table in self.tables.values())

    @property
    def keys(self) -> list[KeyValue]:
        """Without the architecture's name."""
        found = [float32("rope.freq_base", self.base)]
        for name, value in self.scaling.items():
            key = f"rope.scaling.{name}"
            found.append(string(key, value) if isinstance(value, str) else float32(key, value))
        if not math.isclose(self.magnitude, 1.0, rel_tol=1e-9):
            found.append(float32("rope.scaling.attn_factor", self.magnitude))
        return found


def proposals(rope: Rope, solved: Frequencies, loader: Loader) -> Iterator[Proposal]:
    """Those without a table first."""
    if loader.whole_head:
        solved = _widened(rope, solved)
    for proposal in _by_metadata(rope, solved):
        yield replace(proposal, tables=_ones(solved)) if loader.needs_table else proposal
    yield from _by_tables(rope, solved, loader)


def _ones(solved: Frequencies) -> dict[str, Table]:
    """Divisors that change nothing."""
    return {FREQS: np.ones(len(solved.inv_freq), np.float32)}


def _widened(rope: Rope, solved: Frequencies) -> Frequencies:
    """The frequencies for a graph that turns whole heads: the pairs beyond the rotary ones stand
    still.
    """
    still = rope.head_dim // 2 - len(solved.inv_freq)
    if not still:
        return solved
    unscaled = find_kind("default").parameters()
    whole = replace(rope, kind="default", parameters=unscaled, partial_rotary_factor=1.0)
    long = solved.long_inv_freq
    return replace(
        solved,
        base_inv_freq=solve(whole).inv_freq,
        inv_freq=np.pad(solved.inv_freq, (0, still)),
        long_inv_freq=None if long is None else np.pad(long, (0, still)),
    )


def _by_metadata(rope: Rope, solved: Frequencies) -> Iterator[Proposal]:
    """Proposals that need no table."""
    m, long = solved.attention_factor, solved.long_inv_freq
    if long is not None and not np.allclose(long, solved.inv_freq, rtol=RTOL):
        return
    yield Proposal("the base says it all", _implied_base(rope, solved), m, {}, {})
    rho = solved.rho[np.isfinite(solved.rho)]
    if np.ptp(rho) <= RTOL * rho[0]:
        linear: dict[str, float | str] = {"type": "linear", "factor": float(rho[0])}
        yield Proposal("llama.cpp's linear scaling", rope.theta, m, linear, {})
    factor = getattr(rope.parameters, "factor", None)
    if rope.kind == "yarn" and factor and factor > 1:
        # ggml multiplies by 1 + 0.1 ln(factor) of its own accord; R holds what is left of m
        rest = m / (1 + 0.1 * math.log(factor))
        yarn: dict[str, float | str] = {"type": "yarn", "factor": float(factor)}
        yield Proposal("llama.cpp's YaRN", rope.theta, rest, yarn, {})


def _implied_base(rope: Rope, solved: Frequencies) -> float:
    """The base whose powers the frequencies are, if they are.

    From the slowest pair: inv_freq = b ** -((d-2)/d).
    """
    d = 2 * len(solved.inv_freq)
    slowest = float(solved.inv_freq[-1])
    if np.allclose(solved.rho, 1.0, rtol=1e-12) or d <= 2 or slowest <= 0:
        return rope.theta
    return float(slowest ** (-d / (d - 2)))


def _by_tables(rope: Rope, solved: Frequencies, loader: Loader) -> Iterator[Proposal]:
    """Proposals with a divisor for each pair."""
    m, long_rho = solved.attention_factor, solved.long_rho
    short = _table(solved.rho)
    if long_rho is not None and loader.takes(LONG, SHORT, scaling="longrope"):
        why = "short and long divisors, switched by allocated context"
        both = {LONG: _table(long_rho), SHORT: short}
        yield Proposal(why, rope.theta, m, {"type": "longrope"}, both)
    if long_rho is not None and not np.allclose(long_rho, solved.rho, rtol=RTOL):
        return
    why = "a divisor for each rotary pair"
    if loader.takes(FREQS):
        yield Proposal(why, rope.theta, m, {}, {FREQS: short})
    elif loader.takes(LONG, SHORT):
        same = {LONG: short, SHORT: short}
        yield Proposal(f"{why}, the same short and long", rope.theta, m, {}, same)


def _table(rho: NDArray[np.float64]) -> Table:
    return np.where(np.isfinite(rho), rho, STILL).astype(np.float32)
