"""Whether a head is the token embedding under another name."""

from __future__ import annotations

from ropeconv.model import Tensor

ROWS = 4096


def same_table(head: Tensor, table: Tensor) -> bool:
    """Whether both hold the same bytes; read until they differ."""
    same = tuple(head.shape) == tuple(table.shape) and head.dtype == table.dtype
    for start in range(0, table.shape[0] if same else 0, ROWS):
        stop = min(start + ROWS, table.shape[0])
        if not bool((head.raw_rows(start, stop) == table.raw_rows(start, stop)).all()):
            return False
    return same
