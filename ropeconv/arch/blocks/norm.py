"""Norms over the last axis of what they are given."""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.arch.blocks.keys import Key, Sizes, epsilon
from ropeconv.arch.blocks.weight import Role, Weight


@dataclass(frozen=True)
class RmsNorm:
    """x / sqrt(mean(x^2) + eps) times the weight (plus the weight's offset)."""

    weight: Weight
    eps: float

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors."""
        return (self.weight,)


@dataclass(frozen=True)
class LayerNorm:
    """(x - mean) / sqrt(variance + eps), times the weight, plus the bias."""

    weight: Weight
    bias: Weight
    eps: float

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors."""
        return self.weight, self.bias


Norm = RmsNorm | LayerNorm

KEYS = {"norm_eps": Key(("rms_norm_eps",), check=epsilon)}


def rms_norm(
    role: Role, name: str, s: Sizes, *, size: int | None = None, offset: float = 0.0
) -> RmsNorm:
    """The RMS norm called `name`. size: of what it norms, None = the hidden size."""
    shape = (s.hidden_size if size is None else size,)
    return RmsNorm(Weight(role, f"{name}.weight", shape, offset=offset), s.norm_eps)


def layer_norm(role: Role, name: str, s: Sizes) -> LayerNorm:
    """The LayerNorm over the hidden state called `name`, with its bias."""
    shape = (s.hidden_size,)
    weight = Weight(role, f"{name}.weight", shape)
    return LayerNorm(weight, Weight(role, f"{name}.bias", shape, part="bias"), s.norm_eps)
