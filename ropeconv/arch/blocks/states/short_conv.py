"""The short convolution: what mixes tokens in layers without attention.

Shape letters: e hidden, k taps.
"""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.arch.blocks.keys import Sizes
from ropeconv.arch.blocks.norm import Norm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Linear, Role, Weight, linear


@dataclass(frozen=True)
class ShortConv:
    """output(c * conv(b * x)), b, c and x being the thirds of `input` (3e, e).

    conv: (e, 1, k), each channel by itself, over a token and the k - 1 before it. Padding is 0
    where it enters the input.
    """

    size: int
    taps: int
    input: Linear
    conv: Linear
    output: Linear
    window: int | None = None
    num_kv_heads: int = 0

    @property
    def channels(self) -> int:
        """What the convolution runs over."""
        return self.size

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors in the order of a forward pass."""
        return self.input.weights + self.conv.weights + self.output.weights

    @property
    def norms(self) -> tuple[Norm, ...]:
        """None inside of it."""
        return ()

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        return frozenset()

    @property
    def rotary_size(self) -> int:
        """Nothing rotates."""
        return 0


def short_conv(s: Sizes, name: str, *, bias: bool = False) -> ShortConv:
    """in_proj, conv and out_proj of the convolution called `name`."""
    size = s.hidden_size
    kernel = Weight(Role.CONV, f"{name}.conv.weight", (size, 1, s.conv_taps))
    added = Weight(Role.CONV, f"{name}.conv.bias", (size,), part="bias") if bias else None
    return ShortConv(
        size,
        s.conv_taps,
        linear(Role.CONV_IN, f"{name}.in_proj", 3 * size, size, bias=bias),
        Linear(kernel, added),
        linear(Role.CONV_OUT, f"{name}.out_proj", size, size, bias=bias),
    )
