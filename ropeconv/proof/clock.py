"""What the time of a proof went into."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")


class Clock:
    """Seconds of wall time by what they were spent on, in the order of the first time.

    Time inside of another's block is taken off the outer one, so that all of them add up.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = perf_counter()

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Count the block's time as `what`'s."""
        self._count()
        self._open.append(what)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def each(self, what: str, values: Iterable[T]) -> Iterator[T]:
        """`values`, the time that it takes to make them counted as `what`'s."""
        source = iter(values)
        while True:
            with self.of(what):
                try:
                    value = next(source)
                except StopIteration:
                    return
            yield value
            del value  # before the next one is made

    def _count(self) -> None:
        now = perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now
