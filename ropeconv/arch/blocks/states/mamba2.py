"""Mamba2's mixer: a state that every token fades and adds to (arXiv 2405.21060).

Shape letters: e hidden, h heads, p their size, g groups, n state size, k taps.
"""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.arch.blocks.norm import Norm, RmsNorm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Linear, Weight


@dataclass(frozen=True)
class Mamba2:
    """output(y * silu(z)), y being what a state (h, n, p) gives for C, plus skip * x.

    input: z (h*p), x (h*p), B (g*n), C (g*n) and dt (h) rows, each part times its one of `scales`.
    x, B and C go through silu(conv), each channel by itself over `taps` tokens; each group's B and
    C serve h / g heads in a row. With t = softplus(dt + the bias `dt`), a token multiplies the
    state by exp(-exp(decay) * t) and adds B times t * x. Padding is 0 where it enters, and behind
    the convolution. norm: over each of the groups of y, after the gate, or before it where
    norm_first; None = there is none.
    """

    heads: int
    groups: int
    head_dim: int
    state: int
    taps: int
    input: Linear
    conv: Linear
    decay: Weight
    dt: Weight
    skip: Weight
    output: Linear
    scales: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)
    norm: RmsNorm | None = None
    norm_first: bool = False

    @property
    def inner(self) -> int:
        """h*p."""
        return self.heads * self.head_dim

    @property
    def parts(self) -> tuple[int, int, int, int, int]:
        """Rows of z, x, B, C and dt."""
        small = self.groups * self.state
        return self.inner, self.inner, small, small, self.heads

    @property
    def channels(self) -> int:
        """What the convolution runs over."""
        return sum(self.parts[1:4])

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors in the order of a forward pass."""
        inner = (*self.conv.weights, self.dt, self.decay, self.skip)
        norm = () if self.norm is None else self.norm.weights
        return self.input.weights + inner + norm + self.output.weights

    @property
    def norms(self) -> tuple[Norm, ...]:
        """The one behind the state."""
        return () if self.norm is None else (self.norm,)

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        scaled = self.output.factor != 1.0 or set(self.scales) != {1.0}
        found = {Trait.SCALED_PRODUCTS: scaled, Trait.STATE_NORM_FIRST: self.norm_first}
        return frozenset(trait for trait, there in found.items() if there)
