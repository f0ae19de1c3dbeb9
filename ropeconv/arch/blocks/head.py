"""From the last layer's hidden state to logits."""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.arch.blocks.keys import Sizes
from ropeconv.arch.blocks.norm import Norm, rms_norm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Linear, Role, Weight, linear


@dataclass(frozen=True)
class Head:
    """norm, then `output`, then `scale`, then the cap. tied: the output's rows are the token
    embedding's, whatever the file has.

    softcap: logits become cap * tanh(logits / cap); None = they stay.
    """

    norm: Norm
    output: Linear
    tied: bool
    softcap: float | None = None
    scale: float = 1.0

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors; a tied output has no matrix of its own."""
        bias = () if self.output.bias is None else (self.output.bias,)
        return self.norm.weights + (bias if self.tied else self.output.weights)

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        found = {
            Trait.LOGIT_SCALE: self.scale != 1.0,
            Trait.LOGIT_CAP: bool(self.softcap),
            Trait.OUTPUT_BIAS: self.output.bias is not None,
        }
        return frozenset(trait for trait, there in found.items() if there)


def head(
    s: Sizes,
    *,
    norm: Norm | None = None,
    name: str = "lm_head",
    softcap: float | None = None,
    scale: float = 1.0,
    bias: bool = False,
) -> Head:
    """The output called `name` behind `norm`; None = an RMS norm under its usual name."""
    norm = norm or rms_norm(Role.OUTPUT_NORM, "model.norm", s)
    output = linear(Role.OUTPUT, name, s.vocab_size, s.hidden_size, bias=bias)
    return Head(norm, output, s.tied, softcap, scale)
