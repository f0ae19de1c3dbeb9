"""Tables of the documentation, made from what they describe.

    python -m tests.docs_tables        writes them between their marks
    pytest tests/test_docs.py          fails where one is not what this makes

A table stands between `<!-- table NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from ropeconv import registry
from ropeconv.kit.options import Declared, declared

ROOT = Path(__file__).parent.parent
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
MARKED = re.compile(r"<!-- table (?P<name>[^>]+?) -->\n.*?<!-- end -->", re.DOTALL)


def markdown(rows: Iterable[Iterable[str]]) -> str:
    """Rows as a table; the first is its head."""
    head, *rest = [list(row) for row in rows]
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def options(target: str) -> str:
    """What the target's command takes beside the scaling options."""
    rows = [["option", "default", "what it does"]]
    for entry in declared(registry.targets()[target].options):
        rows.append([f"`{', '.join(entry.names)}`", _default(entry), entry.option.help])
    return markdown(rows)


def _default(entry: Declared) -> str:
    if entry.name == "threads":
        return "all"
    typed = entry.typed_default
    return "" if typed in (None, False) else f"`{typed}`"


def kinds() -> str:
    """The scaling kinds."""
    rows = [["kind", "said as", "source", "a fixed table"]]
    for kind in sorted(registry.scalings().values(), key=lambda kind: kind.name):
        spoken = f"`{kind.spoken}`" if kind.spoken else ""
        rows.append([f"`{kind.name}`", spoken, kind.source, "yes" if kind.static else "no"])
    return markdown(rows)


def families() -> str:
    """The families."""
    rows = [["model_type", "classes", "restates"]]
    for arch in sorted(registry.architectures().values(), key=lambda arch: arch.name):
        classes = ", ".join(f"`{name}`" for name in arch.classes)
        rows.append([f"`{arch.name}`", classes, arch.source])
    return markdown(rows)


def gguf_types() -> str:
    """The GGUF file types."""
    from converters.to_gguf.quant.types import FILE_TYPES

    rows = [["type", "bits a weight, of most tensors"]]
    rows += [[f"`{row.name}`", f"{row.bits_per_weight:g}"] for row in FILE_TYPES.values()]
    return markdown(rows)


def hosts() -> str:
    """Families that can be written as another architecture than their own."""
    from converters.to_gguf.archs import homes

    rows = [["model_type", "its own", "by itself", "on request"]]
    for family in sorted(registry.architectures()):
        found = homes(family)
        own = [home.arch.name for home in found if family in home.arch.families]
        free = [home.arch.name for home in found if not home.asked and home.arch.name not in own]
        asked = [home.arch.name for home in found if home.asked]
        if free or asked:
            rows.append([f"`{family}`", *(", ".join(names) for names in (own, free, asked))])
    return markdown(rows)


def support() -> str:
    """How many methods of a family are exact in each target, by docs/grid.md."""
    counted = {target: _counted(target) for target in registry.targets()}
    families = sorted(set().union(*counted.values()))
    rows = [[family, *(found.get(family, "") for found in counted.values())] for family in families]
    return markdown([["family", *counted], *rows])


def _counted(target: str) -> dict[str, str]:
    """Family -> "exact of all" methods."""
    text = (ROOT / "docs" / "grid.md").read_text()
    found = re.search(rf"<!-- grid {target} -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    if found is None:
        raise ValueError(f"docs/grid.md has no grid {target}; run `make grid`")
    rows = [line.strip("| ").split(" | ") for line in found[1].splitlines()[2:]]
    counts = {family: [cell != "refused" for cell in cells] for family, *cells in rows}
    return {family: f"{sum(exact)} of {len(exact)}" for family, exact in counts.items()}


TABLES: dict[str, Callable[[], str]] = {
    "kinds": kinds,
    "families": families,
    "gguf types": gguf_types,
    "gguf hosts": hosts,
    "gguf options": lambda: options("gguf"),
    "support": support,
    "onnx options": lambda: options("onnx"),
    "safetensors options": lambda: options("safetensors"),
}


def filled(text: str) -> str:
    """The page with every table as it should be."""

    def table(found: re.Match[str]) -> str:
        name = found["name"]
        return f"<!-- table {name} -->\n{TABLES[name]()}\n<!-- end -->"

    return MARKED.sub(table, text)


def main() -> None:
    """Write every page."""
    for page in PAGES:
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    main()
