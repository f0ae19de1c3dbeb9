"""Norms over the last axis of what they are given."""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.arch.blocks.keys import Key, Sizes, epsilon
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role, Weight


@dataclass(frozen=True)
class RmsNorm:
    """x / sqrt(mean(x^2) + eps) times the weight (plus the weight's offset)."""

    weight: Weight
    eps: float

    @property
    def role(self) -> Role:
        """Which part it plays."""
        return self.weight.role

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors."""
        return (self.weight,)

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        return frozenset()


@dataclass(frozen=True)
class LayerNorm:
    """(x - mean) / sqrt(variance + eps), times the weight (plus the weight's offset), plus the bias
    where it has one.
    """

    weight: Weight
    bias: Weight | None
    eps: float

    @property
    def role(self) -> Role:
        """Which part it plays."""
        return self.weight.role

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        return frozenset({Trait.LAYER_NORM_WITHOUT_BIAS} if self.bias is None else ())


@dataclass(frozen=True)
class BareLayerNorm:
    """(x - mean) / sqrt(variance + eps): no tensor. size: of what it norms."""

    role: Role
    size: int
    eps: float

    @property
    def weights(self) -> tuple[Weight, ...]:
        """None."""
        return ()

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        return frozenset({Trait.NORM_WITHOUT_WEIGHT})


@dataclass(frozen=True)
class BareRmsNorm:
    """x / sqrt(mean(x^2) + eps): no tensor. size: of what it norms."""

    role: Role
    size: int
    eps: float

    @property
    def weights(self) -> tuple[Weight, ...]:
        """None."""
        return ()

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        return frozenset({Trait.NORM_WITHOUT_WEIGHT})


@dataclass(frozen=True)
class HeadLayerNorms:
    """A LayerNorm without bias for every head, each a tensor of its own (d,)."""

    weights: tuple[Weight, ...]
    eps: float

    @property
    def role(self) -> Role:
        """Which part they play."""
        return self.weights[0].role

    @property
    def traits(self) -> frozenset[Trait]:
        """What they compute beyond their plain form."""
        return frozenset({Trait.OWN_HEAD_NORMS, Trait.LAYER_NORM_WITHOUT_BIAS})


Norm = RmsNorm | LayerNorm | BareLayerNorm | BareRmsNorm | HeadLayerNorms

KEYS = {"norm_eps": Key(("rms_norm_eps",), check=epsilon)}


def rms_norm(
    role: Role, name: str, s: Sizes, *, size: int | None = None, offset: float = 0.0
) -> RmsNorm:
    """The RMS norm called `name`. size: of what it norms, None = the hidden size."""
    shape = (s.hidden_size if size is None else size,)
    return RmsNorm(Weight(role, f"{name}.weight", shape, offset=offset), s.norm_eps)


def layer_norm(
    role: Role,
    name: str,
    s: Sizes,
    *,
    shape: tuple[int, ...] | None = None,
    bias: bool = True,
    offset: float = 0.0,
) -> LayerNorm:
    """The LayerNorm called `name`. shape: of its weight, None = over the hidden state."""
    shape = shape or (s.hidden_size,)
    weight = Weight(role, f"{name}.weight", shape, offset=offset)
    own = Weight(role, f"{name}.bias", shape, part="bias") if bias else None
    return LayerNorm(weight, own, s.norm_eps)
