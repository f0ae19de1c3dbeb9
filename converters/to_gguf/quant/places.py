"""Where in a model a tensor stands, and conditions on it: what a rule of quantising may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """What a rule may look at: the tensor is the `index`-th of `total` that play its role.

    MLPs of a model with experts are counted by layer, however many of a role a layer has; one after
    the other in `order`.
    """

    role: str
    index: int
    total: int
    queries_per_key: int  # attention heads that share one key-value head
    n_expert: int = 0  # experts of a layer, 0 in a dense model
    order: int = 0


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


def shared_or_mixed(place: Place) -> bool:
    """Values that few matrices hold: grouped-query attention as above, or four experts or more."""
    return shared_by_4(place) or place.n_expert >= 4


def first_eighth_in_order(place: Place) -> bool:
    """The first eighth of the tensors of the role, each counted, whatever its layer."""
    return place.order < place.total // 8


def inner(place: Place) -> bool:
    """Neither the first eighth nor the last."""
    return place.total // 8 <= place.index < 7 * place.total // 8


def outer_and_every_third_of_eight(place: Place) -> bool:
    """`outer_and_every_third` of a model of eight experts a layer."""
    return place.n_expert == 8 and outer_and_every_third(place)
