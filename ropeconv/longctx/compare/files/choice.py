"""Which file to ship: those that no other one beats in size and in what is lost at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Weighed(Protocol):
    """What is chosen by."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def kl(self) -> float:
        """Nats a token."""


T = TypeVar("T", bound=Weighed)


def frontier(files: Sequence[T]) -> list[T]:
    """The files that no other one is both smaller and of lower KL than, by size; of two that share
    one number, the better in the other.
    """
    found: list[T] = []
    for one in sorted(files, key=lambda file: (file.size, file.kl)):
        if not found or one.kl < found[-1].kl:
            found.append(one)
    return found


def to_ship(files: Sequence[T], max_bytes: int | None) -> T | None:
    """The file of the lowest KL up to a size, or None where all are larger or no size is stated."""
    fitting = [] if max_bytes is None else [file for file in files if file.size <= max_bytes]
    return min(fitting, key=lambda file: (file.kl, file.size), default=None)
