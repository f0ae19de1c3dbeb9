"""Progress of work that goes through several stages, told as it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class StageProgress(Protocol):
    """Told where the work is, in the unit of the stage; note: a word on it, such as a loss."""

    def __call__(self, stage: str, done: int, total: int, note: str = "", /) -> None:
        """`done` of `total` in `stage`."""


def within(progress: StageProgress | None, stage: str) -> Callable[[int, int], None] | None:
    """What to tell of one stage: (done, total); None when nobody listens."""
    return None if progress is None else lambda done, total: progress(stage, done, total)
