"""Rows of a tensor a few at a time, so that memory is bound by the slab and not by the tensor."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite, prod

from ropeconv.errors import CannotExpress, CheckpointError
from ropeconv.kit.casts import BadValueError
from ropeconv.model import row_count

SLAB = 1 << 20  # values: 4 MiB of float32, which amortise a call and stay near the caches


def cut(shape: tuple[int, ...], *, values: int = SLAB) -> Iterator[tuple[int, int]]:
    """(start, stop) over the first axis of `shape`, at least one row and about `values` at a
    time.
    """
    step = max(1, values // max(1, prod(shape[1:])))
    rows = row_count(shape)
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def place_error(error: BadValueError, name: str, *, start: int) -> CheckpointError | CannotExpress:
    """The error with the tensor's name and the row in the whole tensor; `start`: of the slab."""
    place = f"tensor {name}, row {error.row + start}, column {error.column}"
    kind = CannotExpress if isfinite(error.value) else CheckpointError
    return kind(f"{place}: value {error.value:g} {error.reason}")
