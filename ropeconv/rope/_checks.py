"""Checks of single values: a number that is no number never reaches a formula.

Each check returns the value in the type that the formulas take, or raises RopeConfigError in one
line.
"""

from __future__ import annotations

import math
from typing import Any

from ropeconv.errors import RopeConfigError

MOST = 2**31 - 1


def number(what: str, value: Any, *, above: float = 0.0) -> float:
    """`value` as a finite float above `above`; bool and str are refused."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value <= above
    ):
        raise RopeConfigError(f"{what} is {value!r}; give a finite number above {above:g}")
    return float(value)


def optional_number(what: str, value: Any, *, above: float = 0.0) -> float | None:
    """`number`, with None let through."""
    return None if value is None else number(what, value, above=above)


def whole(what: str, value: Any, *, least: int = 1) -> int:
    """`value` as an int of at least `least` and at most MOST; 4096.0 and bool are refused."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise RopeConfigError(f"{what} is {value!r}; give a whole number of at least {least}")
    if value > MOST:
        raise RopeConfigError(f"{what} is {value}; runtimes count positions up to {MOST}")
    return int(value)


def numbers(what: str, value: Any) -> tuple[float, ...]:
    """`value`, a list or tuple, as finite floats above 0."""
    if not isinstance(value, list | tuple) or not value:
        raise RopeConfigError(
            f"{what} is {str(value)[:40]!r}; give a list of numbers, one a rotary pair"
        )
    return tuple(number(f"{what}[{index}]", item) for index, item in enumerate(value))


def flag(what: str, value: Any) -> bool:
    """`value`, which must be true or false itself."""
    if not isinstance(value, bool):
        raise RopeConfigError(f"{what} is {value!r}; give true or false")
    return value


def refine(parameters: Any, **values: Any) -> None:
    """Store checked values in a frozen dataclass; for use in its `__post_init__` only."""
    for name, value in values.items():
        object.__setattr__(parameters, name, value)
