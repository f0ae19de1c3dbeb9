"""The grids of families and methods as tables: filled by the targets' grid tests, printed after the
tests.
"""

from __future__ import annotations

import pytest

GRID = pytest.StashKey[dict[tuple[str, str], str]]()
ONNX_GRID = pytest.StashKey[dict[tuple[str, str], str]]()
TITLES = {
    GRID: "GGUF logits in llama.cpp against transformers, NMSE at 4 x the trained context",
    ONNX_GRID: (
        "ONNX logits in onnxruntime against transformers, largest difference "
        "over largest logit, worst of the variants"
    ),
}


def table(cells: dict[tuple[str, str], str]) -> str:
    """Methods down, families across, in Markdown."""
    families = list(dict.fromkeys(family for family, _ in cells))
    methods = list(dict.fromkeys(method for _, method in cells))
    rows = [["method", *families], ["---"] * (len(families) + 1)]
    rows += [
        [method, *(cells.get((family, method), "") for family in families)] for method in methods
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
