"""A comparison as one HTML page that needs nothing beside it."""

from __future__ import annotations

from html import escape

from ropeconv.longctx.compare.pictures import draw_losses, draw_passkeys, draw_spectrum
from ropeconv.longctx.compare.run import Comparison, Result

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; \
padding: 0 1rem; color: #111827 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e5e7eb; \
white-space: nowrap }
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
        "Perplexity by position; losses of the same tokens are compared in pairs, "
        "± is a standard error.</p>",
        f'<div class="wide">{_table(found)}</div>',
        "<h2>Verdicts</h2>",
        f"<ul>{''.join(map(_verdict, found.results))}{_refused(found)}</ul>",
        *(f"<figure>{picture}</figure>" for picture in pictures if picture is not None),
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    body = "".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def _table(found: Comparison) -> str:
    bands = [f"{band.start}-{band.stop}" for band in found.results[0].bands]
    names = ["method", *bands, "whole", "below L", "pass keys"]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    return f"<table><tr>{head}</tr>{''.join(map(_row, found.results))}</table>"


def _row(result: Result) -> str:
    recalls = result.measured.recalls
    hits = sum(recall.retrieved for recall in recalls)
    bands = (*result.bands, result.whole, result.short)
    cells = [escape(result.variant.label), *(f"{band.perplexity:.4g}" for band in bands)]
    cells.append(f"{hits}/{len(recalls)}" if recalls else "-")
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _verdict(result: Result) -> str:
    advice = f" <em>{escape(result.advice)}</em>" if result.advice else ""
    return f"<li><b>{escape(result.variant.label)}</b>: {escape(result.verdict)}.{advice}</li>"


def _refused(found: Comparison) -> str:
    return "".join(
        f"<li><b>{escape(variant.label)}</b>: refused: {escape(variant.refusal)}</li>"
        for variant in found.refused
    )
