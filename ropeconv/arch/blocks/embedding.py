"""The token embedding."""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.arch.blocks.keys import Sizes
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role, Weight


@dataclass(frozen=True)
class Embedding:
    """Rows of a table (v, e), times `scale`."""

    weight: Weight
    scale: float = 1.0

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors."""
        return (self.weight,)

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        return frozenset({Trait.EMBEDDING_SCALE} if self.scale != 1.0 else ())


def embedding(s: Sizes, *, name: str = "model.embed_tokens", scale: float = 1.0) -> Embedding:
    """The token embedding called `name`."""
    shape = (s.vocab_size, s.hidden_size)
    return Embedding(Weight(Role.TOKEN_EMBEDDING, f"{name}.weight", shape), scale)
