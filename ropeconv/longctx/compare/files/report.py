"""A comparison of files as a table on the terminal, as JSON values, as CSV, as a page."""

from __future__ import annotations

import csv
import io
import math
from html import escape
from typing import Any

from ropeconv.longctx.compare.files.choice import frontier
from ropeconv.longctx.compare.files.run import FileResult, FilesComparison, Perplexities
from ropeconv.longctx.compare.page import page_table, whole_page
from ropeconv.longctx.compare.pictures import INK, to_svg
from ropeconv.longctx.compare.report import band_facts, perplexity_words
from ropeconv.longctx.measuring.records import json_number

COLUMNS = (
    "file", "type", "MB", "bits/weight", "KL", "KL past L", "top-1", "ppl below L", "ppl past L",
    "reads/s", "writes/s", "frontier",
)  # fmt: skip
FACTS = (
    "label", "type", "bytes", "bits_per_weight", "kl", "kl_error", "kl_short", "kl_long", "top1",
    "perplexity_short", "perplexity_long", "reading", "generating", "frontier",
)  # fmt: skip
MEGA = 1e6


def render(found: FilesComparison, console: Any) -> None:
    """The table, then which file to ship."""
    from rich.table import Table

    table = Table(title=_title(found))
    for number, name in enumerate(COLUMNS):
        table.add_column(name, justify="right" if number > 1 else "left", no_wrap=True)
    for cells in _cells(found):
        table.add_row(*cells)
    console.print(table)
    for line in _advice(found):
        console.print(line, markup=False)


def _title(found: FilesComparison) -> str:
    return (
        f"{found.source}, {found.scaling}, L {found.trained} -> {found.context}: "
        f"{len(found.results)} files on {found.tokens} tokens"
    )


def _cells(found: FilesComparison) -> list[list[str]]:
    plain = ["PyTorch", "float32", "-", "-", "-", "-", "-"]
    rows = [[*plain, *_perplexity_cells(found.reference), "-", "-", ""]]
    return rows + [_file_cells(result) for result in found.results]


def _file_cells(result: FileResult) -> list[str]:
    return [
        result.label,
        result.type,
        f"{result.size / MEGA:,.1f}",
        f"{result.bits:.2f}",
        f"{result.kl:.4f} ± {_number(result.error, '.4f')}",
        "-" if result.kl_long is None else f"{result.kl_long:.4f}",
        f"{result.top1:.1%}",
        *_perplexity_cells(result.perplexities),
        _number(result.reading, ",.0f"),
        _number(result.generating, ",.1f"),
        "yes" if result.best else "",
    ]


def _perplexity_cells(found: Perplexities) -> tuple[str, str]:
    long = "-" if found.long is None else perplexity_words(found.long.perplexity)
    return perplexity_words(found.short.perplexity), long


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _advice(found: FilesComparison) -> list[str]:
    """What to ship, in words."""
    names = ", ".join(result.label for result in frontier(found.results))
    lines = [f"on the frontier (no other file is both smaller and of lower KL): {names}"]
    if found.max_bytes is not None:
        limit = f"{found.max_bytes:,} bytes"
        told = f"no file is within {limit}" if found.ship is None else f"ship {found.ship}"
        lines.append(told if found.ship is None else f"{told}: the lowest KL within {limit}")
    return lines


def to_json(found: FilesComparison) -> dict[str, Any]:
    """Everything but the numbers of every token, which lie in the folder's rows."""
    return {
        "source": found.source,
        "scaling": found.scaling,
        "original_context": found.trained,
        "context": found.context,
        "tokens": found.tokens,
        "weights": found.weights,
        "reference": _perplexity_facts(found.reference),
        "files": [_facts(result) for result in found.results],
        "frontier": [result.label for result in frontier(found.results)],
        "max_bytes": found.max_bytes,
        "ship": found.ship,
    }


def _facts(result: FileResult) -> dict[str, Any]:
    return {
        "label": result.label,
        "path": str(result.path),
        "type": result.type,
        "bytes": result.size,
        "bits_per_weight": result.bits,
        "kl": result.kl,
        "kl_error": json_number(result.error),
        "kl_short": result.kl_short,
        "kl_long": result.kl_long,
        "top1": result.top1,
        **_perplexity_facts(result.perplexities),
        "reading": json_number(result.reading),
        "generating": json_number(result.generating),
        "frontier": result.best,
    }


def _perplexity_facts(found: Perplexities) -> dict[str, Any]:
    return {
        "bands": [band_facts(band) for band in found.bands],
        "short": band_facts(found.short),
        "long": None if found.long is None else band_facts(found.long),
    }


def to_csv(found: FilesComparison) -> str:
    """One line a file."""
    out = io.StringIO()
    writer = csv.DictWriter(out, FACTS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for result in found.results:
        facts = _facts(result)
        long = facts["long"]
        facts["perplexity_short"] = facts["short"]["perplexity"]
        facts["perplexity_long"] = None if long is None else long["perplexity"]
        writer.writerow(facts)
    return out.getvalue()


def to_html(found: FilesComparison) -> str:
    """The page, which needs nothing beside it."""
    title = _title(found)
    advice = "".join(f"<li>{escape(line)}</li>" for line in _advice(found))
    parts = [
        f"<h1>{escape(title)}</h1>",
        "<p>KL of each file's next tokens from PyTorch's (float32, the source's weights under the "
        "same scaling), nats a token, ± a standard error; top-1: both rank the same token first; "
        "reads and writes: tokens a second in its own runtime.</p>",
        page_table(COLUMNS, _cells(found)),
        f"<ul>{advice}</ul>",
        f"<figure>{draw_sizes(found)}</figure>",
    ]
    return whole_page(title, parts)


def draw_sizes(found: FilesComparison) -> str:
    """KL against bytes, the frontier joined."""

    def draw(axis: Any) -> None:
        best = frontier(found.results)
        axis.plot([r.size / MEGA for r in best], [r.kl for r in best], "-", color=INK, lw=0.8)
        for number, result in enumerate(found.results):
            place = (result.size / MEGA, result.kl)
            axis.plot(*place, "o" if result.best else "x", color=f"C{number % 10}", ms=6)
            axis.annotate(
                f"{result.label} ({result.type})",
                place,
                xytext=(5, 4),
                textcoords="offset points",
                fontsize=7,
            )
        if all(result.kl > 0 for result in found.results):
            axis.set_yscale("log")
        axis.margins(x=0.15)
        axis.set(xlabel="megabytes", ylabel="KL, nats a token", title="what is lost against size")
        axis.grid(alpha=0.25, lw=0.5)

    return to_svg((9, 5), draw)
