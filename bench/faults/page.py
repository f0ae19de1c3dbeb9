"""docs/faults.md out of the results."""

from __future__ import annotations

from collections.abc import Collection

from bench.faults.catalogue import GROUPS
from bench.faults.hidden import HIDDEN
from bench.faults.models import REAL
from bench.faults.table import Results

HEAD = """# Planted faults

Written by `make faults`: a fault a row, a file type a column. Each is planted in a finished file of
SmolLM2-135M made 4 times longer by Position Interpolation, or of the random model in brackets, and
`ropeconv verify --tokens {tokens}` says which rungs see it. An empty cell: the type cannot have it.
**{seen} of {total} are seen**; {minutes:.0f} minutes of CPU time.
"""


def page(results: Results, types: Collection[str], *, tokens: int) -> str:
    """The whole of it; of the rows that were run, the types that were asked for."""
    cells = [
        (fault, kind)
        for fault in results.faults
        for kind in types
        if (fault.name, kind) in results.outcomes
    ]
    seen = sum(results.seen(fault, kind) for fault, kind in cells)
    minutes = sum(outcome.seconds for outcome in results.outcomes.values()) / 60
    parts = [
        HEAD.format(seen=seen, total=len(cells), tokens=tokens, minutes=minutes),
        "## Files without a fault\n\n" + _sound_table(results, types),
    ]
    for title, group in GROUPS.items():
        rows = [fault for fault in results.faults if fault in group]
        lines = [
            [_label(fault.name, fault.model), *(results.cell(fault, kind) for kind in types)]
            for fault in rows
        ]
        if lines:
            parts.append(f"## {title}\n\n{_table(lines, types)}")
    if HIDDEN:
        lines_hidden = [f"- {fault}, {kind}: {why}" for (fault, kind), why in HIDDEN.items()]
        parts.append("## Below a type's own rounding\n\n" + "\n".join(lines_hidden) + "\n")
    return "\n".join(parts)


def _label(name: str, model: str) -> str:
    return name if model == REAL else f"{name} ({model})"


def _sound_table(results: Results, types: Collection[str]) -> str:
    rows = [
        [model, *(results.sound_cell(model, kind) for kind in types)] for model in results.models()
    ]
    return _table(rows, types)


def _table(rows: list[list[str]], types: Collection[str]) -> str:
    lines = [["", *types], ["---"] * (len(list(types)) + 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
