"""Codes that a tensor's numbers are computed from, for files that can hold the very same.

Shape letters: n rows, c columns, g groups of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ropeconv.config.bundles import Turned
from ropeconv.kit.float_types import FLOATS
from ropeconv.kit.views import Part, Reordered
from ropeconv.model import Tensor

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Groups:
    """Some rows of integers: codes (n, c), or none; scales (n, g), floats as stored; zeros (n, g),
    None where each is 2^(bits - 1).
    """

    codes: Bytes
    scales: NDArray[Any]
    zeros: Bytes | None


@dataclass(frozen=True)
class Integers:
    """number = (code - zero) * scale, with codes from 0 to 2^bits - 1.

    group: neighbours of a row that share a scale and a zero; the last ones may be fewer. zeros:
    whether they are stored. read: (start, stop) -> those rows; grid: the same without codes.
    """

    bits: int
    group: int
    zeros: bool
    read: Callable[[int, int], Groups]
    grid: Callable[[int, int], Groups]

    @property
    def what(self) -> str:
        """For messages."""
        return f"{self.bits}-bit codes in groups of {self.group}"


@dataclass(frozen=True)
class Microscaled:
    """4-bit floats (E2M1), 32 of which share an exponent of two (E8M0): OCP's MXFP4.

    read: (start, stop) -> codes (n, c), exponents (n, g).
    """

    read: Callable[[int, int], tuple[Bytes, Bytes]]

    @property
    def what(self) -> str:
        """For messages."""
        return "MXFP4 codes"


@dataclass(frozen=True)
class OtherCodes:
    """Codes that no other file holds. what: for messages."""

    what: str


NO_CODES = np.empty((0, 0), np.uint8)
Codes = Integers | Microscaled | OtherCodes


@runtime_checkable
class Coded(Protocol):
    """A tensor that knows its codes."""

    @property
    def made_of(self) -> Codes:
        """The codes."""


def codes_of(tensor: Tensor) -> Codes | None:
    """What a tensor's numbers are computed from; None where it holds the numbers themselves."""
    if isinstance(tensor, Coded):
        return tensor.made_of
    if tensor.dtype not in FLOATS:
        return OtherCodes(f"{tensor.dtype} blocks")
    moved = _of_rows(tensor)
    if moved is not None:
        return moved
    under = [*getattr(tensor, "parts", ()), *([tensor.base] if hasattr(tensor, "base") else [])]
    if any(codes_of(one) is not None for one in under):
        return OtherCodes("codes that are merged with other numbers")
    return None


def _of_rows(tensor: Tensor) -> Codes | None:
    """The codes of a view of whole rows; None where it is no such view, or codes cannot follow."""
    if isinstance(tensor, Turned):
        return None if tensor.upright is None else codes_of(tensor.upright)
    if not isinstance(tensor, Part | Reordered):
        return None
    inner = codes_of(tensor.base)
    if not isinstance(inner, Microscaled):
        return None
    read = inner.read
    order = tensor.order if isinstance(tensor, Reordered) else None
    first = tensor.first if isinstance(tensor, Part) else 0

    def moved(start: int, stop: int) -> tuple[Bytes, Bytes]:
        if order is None:
            return read(first + start, first + stop)
        wanted = order[start:stop]
        low = int(wanted.min())
        codes, exponents = read(low, int(wanted.max()) + 1)
        return codes[wanted - low], exponents[wanted - low]

    return Microscaled(moved)
