"""From the last layer's hidden state to logits."""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.arch.blocks.keys import Sizes
from ropeconv.arch.blocks.norm import Norm, rms_norm
from ropeconv.arch.blocks.weight import Linear, Role, Weight, linear


@dataclass(frozen=True)
class Head:
    """norm, then `output`. tied: the output's rows are the token embedding's, whatever the file
    has.

    softcap: logits become cap * tanh(logits / cap); None = they stay.
    """

    norm: Norm
    output: Linear
    tied: bool
    softcap: float | None = None

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors; a tied output has none of its own."""
        return self.norm.weights + (() if self.tied else self.output.weights)


def head(
    s: Sizes,
    *,
    norm: Norm | None = None,
    name: str = "lm_head",
    softcap: float | None = None,
) -> Head:
    """The output called `name` behind `norm`; None = an RMS norm under its usual name."""
    norm = norm or rms_norm(Role.OUTPUT_NORM, "model.norm", s)
    return Head(norm, linear(Role.OUTPUT, name, s.vocab_size, s.hidden_size), s.tied, softcap)
