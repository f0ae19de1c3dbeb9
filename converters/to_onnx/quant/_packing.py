"""How the codes of a matrix are chosen: the nearest, weighed by columns, or with feedback.

What a file says of it (`codes`) decides which limits the proof has for its blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any, Protocol

from numpy.typing import NDArray

from converters.to_onnx.quant._feedback import Feedback, feed_back_rows, solve_feedback
from converters.to_onnx.quant._pack import Packed, pack_rows
from converters.to_onnx.quant._types import FED_BACK, NEAREST, WEIGHED, Blocks
from ropeconv.importance.moments import Moments
from ropeconv.importance.sums import Sums


class Packing(Protocol):
    """A way to choose codes."""

    @property
    def codes(self) -> str:
        """What files call it."""

    @property
    def words(self) -> str:
        """What the report says; empty for the nearest."""

    def pack(self, name: str, rows: NDArray[Any], blocks: Blocks, /) -> Packed:
        """(n, c) rows of the tensor `name`; see pack_rows."""


class Nearest:
    """Each number to the code nearest to it."""

    codes = NEAREST
    words = ""

    def pack(self, _name: str, rows: NDArray[Any], blocks: Blocks) -> Packed:
        """See Packing."""
        return pack_rows(rows, blocks)


@dataclass(frozen=True)
class Weighed:
    """Scales and zero points by what a column's errors cost. sums: of a matrix's inputs; a matrix
    without has the nearest codes.
    """

    sums: Mapping[str, Sums]
    codes = WEIGHED

    @property
    def words(self) -> str:
        """See Packing."""
        return f"scales by the importance of the columns of {len(self.sums)} matrices"

    def pack(self, name: str, rows: NDArray[Any], blocks: Blocks) -> Packed:
        """See Packing."""
        own = self.sums.get(name)
        return pack_rows(rows, blocks, None if own is None else own.means[0])


class FedBack:
    """Errors of a column are made up for by those after it, as their inputs allow."""

    codes = FED_BACK
    words = "codes that make up for one another's errors (GPTQ)"

    def __init__(self, moments: Moments) -> None:
        self._moments = moments
        self._lock = Lock()
        self._solved = lru_cache(maxsize=2)(self._solve)  # of those that threads are writing

    def pack(self, name: str, rows: NDArray[Any], blocks: Blocks) -> Packed:
        """See Packing."""
        with self._lock:
            found = self._solved(name)
        if isinstance(found, Feedback):
            return feed_back_rows(rows, blocks, found)
        return pack_rows(rows, blocks, found)

    def _solve(self, name: str) -> Feedback | NDArray[Any] | None:
        found = self._moments.of(name)
        if isinstance(found, Sums):
            means: NDArray[Any] = found.means[0]
            return means
        return None if found is None else solve_feedback(found)
