"""A comparison as one HTML page that needs nothing beside it."""

from __future__ import annotations

from html import escape

from ropeconv.longctx.compare import Comparison, Result
from ropeconv.longctx.plot import draw_losses, draw_passkeys, draw_spectrum
from ropeconv.longctx.report import recalls

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #111827 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e5e7eb; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
svg { max-width: 100%; height: auto }
.wide { overflow-x: auto }
"""


def to_html(found: Comparison) -> str:
    """The page."""
    rope = found.model.main_rope
    title = f"{found.source}: long-context methods compared"
    pictures = [draw_losses(found), draw_passkeys(found), draw_spectrum(found)]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{found.tokens} tokens of one text; the model was trained on {rope.original_context}. "
        "Perplexity by position; losses of the same tokens are compared in pairs, ± is a standard error.</p>",
        f'<div class="wide">{_table(found)}</div>',
        "<h2>Verdicts</h2>",
        f"<ul>{''.join(_verdict(result) for result in found.results)}{_refused(found)}</ul>",
        *(f"<figure>{picture}</figure>" for picture in pictures if picture is not None),
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{"".join(parts)}</body></html>\n'


def _table(found: Comparison) -> str:
    names = ["method", *(f"{band.start}-{band.stop}" for band in found.results[0].bands), "whole", "below L", "pass keys"]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    return f"<table><tr>{head}</tr>{''.join(_row(result) for result in found.results)}</table>"


def _row(result: Result) -> str:
    keys = recalls(result)
    bands = (*result.bands, result.whole, result.short)
    cells = [f"<td>{escape(result.row.label)}</td>", *(f"<td>{band.perplexity:.4g}</td>" for band in bands)]
    cells.append(f"<td>{sum(key.retrieved for key in keys)}/{len(keys)}</td>" if keys else "<td>-</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _verdict(result: Result) -> str:
    advice = f" <em>{escape(result.advice)}</em>" if result.advice else ""
    return f"<li><b>{escape(result.row.label)}</b>: {escape(result.verdict)}.{advice}</li>"


def _refused(found: Comparison) -> str:
    return "".join(f"<li><b>{escape(row.label)}</b>: refused: {escape(row.refusal)}</li>" for row in found.refused)
