"""How a layer's mixer and MLP are joined to the residual stream x, and where its norms stand.

`placed` gives a kind's tensors in the order in which a rewritten checkpoint lists them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.arch.blocks.norm import Norm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Weight


@dataclass(frozen=True)
class Placed:
    """A layer's norms: those listed before the mixer's tensors, those between mixer and MLP."""

    before: tuple[Weight, ...]
    between: tuple[Weight, ...] = ()


def _scaled(scale: float) -> frozenset[Trait]:
    return frozenset({Trait.RESIDUAL_SCALE} if scale != 1.0 else ())


@dataclass(frozen=True)
class PreNorm:
    """x + scale * mixer(norm x), then x + scale * mlp(norm x)."""

    mixer_norm: Norm
    mlp_norm: Norm
    scale: float = 1.0

    @property
    def placed(self) -> Placed:
        """See the module."""
        return Placed(self.mixer_norm.weights + self.mlp_norm.weights)

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        return _scaled(self.scale)


@dataclass(frozen=True)
class PostNorm:
    """x + norm(mixer x), then x + norm(mlp x)."""

    mixer_post_norm: Norm
    mlp_post_norm: Norm

    @property
    def placed(self) -> Placed:
        """See the module."""
        return Placed((), self.mixer_post_norm.weights + self.mlp_post_norm.weights)

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        return frozenset()


@dataclass(frozen=True)
class Sandwich:
    """x + scale * norm(mixer(norm x)), then x + scale * norm(mlp(norm x))."""

    mixer_norm: Norm
    mixer_post_norm: Norm
    mlp_norm: Norm
    mlp_post_norm: Norm
    scale: float = 1.0

    @property
    def placed(self) -> Placed:
        """See the module."""
        mixer = self.mixer_norm.weights + self.mixer_post_norm.weights
        return Placed(mixer, self.mlp_norm.weights + self.mlp_post_norm.weights)

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        return _scaled(self.scale)


@dataclass(frozen=True)
class SandwichOfTwo:
    """x + norm(mixer(norm x)), then x + norm(norm(shared expert(norm x)) + norm(experts(another
    norm x))).
    """

    mixer_norm: Norm
    mixer_post_norm: Norm
    mlp_norm: Norm
    shared_post_norm: Norm
    experts_norm: Norm
    experts_post_norm: Norm
    mlp_post_norm: Norm

    @property
    def placed(self) -> Placed:
        """See the module."""
        first, second, *others = norms_of(self)
        between = sum((norm.weights for norm in others), ())
        return Placed(first.weights + second.weights, between)

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        return frozenset()


@dataclass(frozen=True)
class Parallel:
    """x + mixer(norm x) + mlp(another norm of the same x)."""

    mixer_norm: Norm
    mlp_norm: Norm

    @property
    def placed(self) -> Placed:
        """See the module."""
        return Placed(self.mixer_norm.weights + self.mlp_norm.weights)

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        return frozenset()


@dataclass(frozen=True)
class SharedParallel:
    """x + mixer(norm x) + mlp(the same norm of x)."""

    mixer_norm: Norm

    @property
    def placed(self) -> Placed:
        """See the module."""
        return Placed(self.mixer_norm.weights)

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        return frozenset()


Residual = PreNorm | PostNorm | Sandwich | SandwichOfTwo | Parallel | SharedParallel


def norms_of(residual: Residual) -> tuple[Norm, ...]:
    """The norms that stand around a layer's mixer and MLP."""
    return tuple(value for value in vars(residual).values() if isinstance(value, Norm))
