"""The grids of families and methods: which cells a run makes, and their tables.

`make test` runs every family with Position Interpolation, and every method on the families of
SAMPLE, which rotate in every way that there is; of tests marked `halved` it runs half of the cases,
of each pair another one in turn, and of those marked `long` none. `make grid` runs every cell and
case and writes docs/grid.md.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.docs_tables import markdown

SAMPLE = ("gemma3_text", "glm", "gpt_neox", "llama", "phi3", "smollm3")
Cells = dict[tuple[str, str], str]
GGUF_GRID = pytest.StashKey[Cells]()
ONNX_GRID = pytest.StashKey[Cells]()
SAFETENSORS_GRID = pytest.StashKey[Cells]()
GRIDS = {"gguf": GGUF_GRID, "onnx": ONNX_GRID, "safetensors": SAFETENSORS_GRID}
TITLES = {
    "gguf": "GGUF: the F32 file in llama.cpp against transformers, NMSE",
    "onnx": (
        "ONNX: fp32 in onnxruntime against transformers, largest difference over largest logit, "
        "the worst of both profiles, both ways to bake, one call and three"
    ),
    "safetensors": (
        "Hugging Face folders: float32 in transformers 5 and 4 against transformers 5, largest "
        "difference over largest logit; loud = the class of transformers 4 refuses to load it"
    ),
}
HEAD = """# Every cell

Written by `make grid`: each family and method on a random model, logits compared at 4 times the
trained context. What transformers is told is spelled by hand; "refused" is a refusal whose reason
a test names.
"""


def is_sampled(family: str, method: str) -> bool:
    """Whether `make test` runs the cell."""
    return method == "linear" or family in SAMPLE


def table(cells: Cells) -> str:
    """Families down, methods across, in Markdown."""
    families = sorted({family for family, _ in cells})
    methods = list(dict.fromkeys(method for _, method in cells))
    rows = [
        [family, *(cells.get((family, method), "") for method in methods)] for family in families
    ]
    return markdown([["family", *methods], *rows])


def page(config: pytest.Config) -> str:
    """docs/grid.md out of a run of every cell."""
    parts = [HEAD]
    for name, key in GRIDS.items():
        cells = table(config.stash.get(key, {}))
        parts.append(f"## {TITLES[name]}\n\n<!-- grid {name} -->\n{cells}\n<!-- end -->\n")
    return "\n".join(parts)


def select(items: list[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Of the collected tests, those to run and the cells and cases outside of the sample."""
    chosen: list[pytest.Item] = []
    left: list[pytest.Item] = []
    seen: Counter[str] = Counter()
    for item in items:
        cell = item.get_closest_marker("cell")
        values = item.callspec.params if cell and isinstance(item, pytest.Function) else None
        outside = values is not None and not is_sampled(values["family"], values["method"])
        if item.get_closest_marker("long"):
            outside = True
        elif item.get_closest_marker("halved"):
            name = item.nodeid.partition("[")[0]
            outside = not is_of_the_half(seen[name])
            seen[name] += 1
        (left if outside else chosen).append(item)
    return chosen, left


def is_of_the_half(number: int) -> bool:
    """Whether a case is run: of two that follow each other the first, of the next two the other."""
    return (number + number // 2) % 2 == 0


def write(config: pytest.Config, path: Path) -> None:
    """Write docs/grid.md and cut README's table from it."""
    from tests.docs_tables import main

    path.write_text(page(config))
    main()
