"""The grid of families and methods as a table: filled by tests/to_gguf/test_grid.py, printed after the tests."""

from __future__ import annotations

import pytest

GRID = pytest.StashKey[dict[tuple[str, str], str]]()


def table(cells: dict[tuple[str, str], str]) -> str:
    """Methods down, families across, in Markdown."""
    families = list(dict.fromkeys(family for family, _ in cells))
    methods = list(dict.fromkeys(method for _, method in cells))
    rows = [["method", *families], ["---"] * (len(families) + 1)]
    rows += [[method, *(cells.get((family, method), "") for family in families)] for method in methods]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
