"""Tensors that a checkpoint has in one: of all experts of a layer, gate and up together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ropeconv.arch.blocks.weight import Weight


@dataclass(frozen=True)
class Bundle:
    """One tensor of a checkpoint, called `template`, that holds several weights of a block.

    parts: the weights, alike in shape, under names of ropeconv's own; with `{x}` in theirs it holds
    them for every expert, along a first axis. They lie one below the other, or a row of each in
    turn where `alternating`. turned: rows and columns are exchanged then.
    """

    template: str
    parts: tuple[Weight, ...]
    alternating: bool = False
    turned: bool = False

    def shape(self, experts: int) -> tuple[int, ...]:
        """As stored, for so many experts."""
        first, *rest = self.parts[0].shape
        own = (first * len(self.parts), *rest)
        own = own[::-1] if self.turned else own
        return (experts, *own) if self.parts[0].per_expert else own

    def names(self, layer: int, experts: int) -> Iterator[tuple[str, ...]]:
        """The parts' names in one layer, of one expert after the other."""
        for x in range(experts if self.parts[0].per_expert else 1):
            yield tuple(part.template.format(n=layer, x=x) for part in self.parts)


def bundled(
    template: str,
    weights: tuple[Weight, ...],
    *,
    experts: bool = True,
    alternating: bool = False,
    turned: bool = False,
) -> Bundle:
    """The tensor that holds these weights, which are called after it and their own part."""
    place = f"{template}[{{x}}]" if experts else template
    parts = tuple(replace(w, template=f"{place}.{w.role.value}") for w in weights)
    return Bundle(template, parts, alternating, turned)
