"""A comparison as one HTML page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ropeconv.longctx.compare.pictures import draw_losses, draw_passkeys, draw_spectrum
from ropeconv.longctx.compare.report import retrieved_words
from ropeconv.longctx.compare.run import Comparison, Part, Result
from ropeconv.longctx.compare.uses import describe_best
from ropeconv.longctx.measuring.passkeys import PASSKEY

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
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>The model was trained on {rope.original_context} tokens. "
        "Perplexity by position; losses of the same tokens are compared in pairs, "
        "± is a standard error.</p>",
        *(section for part in found.parts for section in _sections(found, part)),
        "" if found.best is None else f"<p><b>{escape(describe_best(found.best))}</b></p>",
        _refused(found),
        f"<figure>{draw_spectrum(found)}</figure>",
    ]
    return whole_page(title, parts)


def whole_page(title: str, parts: Sequence[str]) -> str:
    """A page of these parts, one after the other."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    body = "".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def page_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table: its first column text, the others numbers."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _sections(found: Comparison, part: Part) -> list[str]:
    """One text of one length: numbers, verdicts, pictures."""
    pictures = [draw_losses(found, part), draw_passkeys(part)]
    return [
        f"<h2>{escape(part.words)}</h2>",
        _table(part),
        "<h3>Verdicts</h3>",
        f"<ul>{''.join(map(_verdict, part.results))}</ul>",
        *(f"<figure>{picture}</figure>" for picture in pictures if picture is not None),
    ]


def _table(part: Part) -> str:
    bands = [f"{band.start}-{band.stop}" for band in part.results[0].bands]
    caches = ["cache"] if part.caches else []
    others = [name for name in part.tasks if name != PASSKEY]
    names = ["method", *caches, *bands, "whole", "below L", "pass keys", *others]
    return page_table(names, (_row(result, part, others) for result in part.results))


def _row(result: Result, part: Part, others: Sequence[str]) -> list[str]:
    bands = (*result.bands, result.whole, result.short)
    cells = [result.variant.label, *([result.variant.cache] if part.caches else [])]
    cells += [f"{band.perplexity:.4g}" for band in bands]
    return cells + [retrieved_words(result, task) for task in (PASSKEY, *others)]


def _verdict(result: Result) -> str:
    advice = f" <em>{escape(result.advice)}</em>" if result.advice else ""
    return f"<li><b>{escape(result.variant.label)}</b>: {escape(result.verdict)}.{advice}</li>"


def _refused(found: Comparison) -> str:
    lines = "".join(
        f"<li><b>{escape(variant.label)}</b>: refused: {escape(variant.refusal)}</li>"
        for variant in found.refused
    )
    return f"<ul>{lines}</ul>" if lines else ""
