"""Where in a model a tensor stands, and conditions on it: what a rule of quantising may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """What a rule may look at: the tensor is the `index`-th of `total` that play its role.

    Down projections of a model with experts are counted by layer, however many of them a layer has.
    """

    role: str
    index: int
    total: int
    queries_per_key: int  # attention heads that share one key-value head
    n_expert: int = 0  # experts of a layer, 0 in a dense model


Where = Callable[[Place], bool]
Lines = tuple[tuple[Where, str], ...]


def anywhere(_: Place) -> bool:
    """Every tensor of the role."""
    return True


def shared_by_4(place: Place) -> bool:
    """Grouped-query attention with at least four query heads on a key-value head."""
    return place.queries_per_key >= 4


def outer_and_every_third(place: Place) -> bool:
    """The first eighth, the last eighth, and every third between (`use_more_bits`)."""
    eighth = place.total // 8
    outer = place.index < eighth or place.index >= 7 * place.total // 8
    return outer or (place.index - eighth) % 3 == 2


def first(count: int) -> Where:
    """The first `count` tensors of the role."""
    return lambda place: place.index < count


def first_part(parts: int) -> Where:
    """The first `1 / parts` of the tensors of the role, rounded down."""
    return lambda place: place.index < place.total // parts
