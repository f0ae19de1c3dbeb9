"""A comparison as a table on the terminal, as JSON values, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ropeconv.longctx.compare import Comparison, Result
from ropeconv.longctx.judge import Against, Difference
from ropeconv.longctx.passkey import Recall

NUMBERS = ("start", "stop", "loss", "error", "tokens", "perplexity")


def render(found: Comparison, console: Any) -> None:
    """Perplexity by band, the price below L, pass keys, then a verdict a line."""
    from rich.table import Table

    rope = found.model.main_rope
    table = Table(title=f"{found.source}: perplexity by position, {found.tokens} tokens, trained {rope.original_context}")
    table.add_column("method", no_wrap=True)
    for band in found.results[0].bands:
        table.add_column(f"{band.start}-", justify="right", no_wrap=True)
    for name in ("whole", "below L", "pass keys", "key loss"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in found.results:
        bands = [_perplexity(band.perplexity) for band in result.bands]
        regions = [_perplexity(result.whole.perplexity), _perplexity(result.short.perplexity)]
        table.add_row(result.row.label, *bands, *regions, *_passkey_cells(result))
    console.print(table)
    console.print(_verdicts(found))
    for row in found.refused:
        console.print(f"{row.label}: refused: {row.refusal}", markup=False)


def _verdicts(found: Comparison) -> Any:
    """Differences of the same tokens' losses; a star marks the clear ones."""
    from rich.table import Table

    trained = found.model.main_rope.original_context
    table = Table(title="loss against the unscaled model and against PI: nats a token, below 0 is better, * is clear")
    table.add_column("method", no_wrap=True)
    for name in (f"none, past {trained}", f"none, below {trained}", f"PI, past {trained}", f"PI, below {trained}"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    for result in found.results:
        cells = [_cell(delta) for against in (result.none, result.pi) for delta in _regions(against)]
        table.add_row(result.row.label, *cells, result.advice or ("the baseline" if result.row.method == "none" else ""))
    return table


def _regions(against: Against | None) -> tuple[Difference | None, Difference | None]:
    return (None, None) if against is None else (against.long, against.short)


def _cell(delta: Difference | None) -> str:
    return "-" if delta is None else f"{delta.mean:+.3f} ± {delta.error:.3f}{'*' if delta.sign else ' '}"


def _perplexity(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}" if value < 1e6 else f"{value:.1e}"


def recalls(result: Result) -> list[Recall]:
    """Every key of every prompt."""
    return [recall for prompt in result.measured.passkeys for recall in prompt]


def _passkey_cells(result: Result) -> tuple[str, str]:
    found = recalls(result)
    if not found:
        return "-", "-"
    hits = sum(recall.retrieved for recall in found)
    return f"{hits}/{len(found)}", f"{sum(recall.loss for recall in found) / len(found):.2f}"


def to_json(found: Comparison) -> dict[str, Any]:
    """Everything but the loss of every token, which lies in the folder's rows."""
    rope = found.model.main_rope
    return {
        "source": found.source,
        "original_context": rope.original_context,
        "tokens": found.tokens,
        "rows": [_row_facts(result) for result in found.results],
        "refused": [{"label": row.label, "reason": row.refusal} for row in found.refused],
    }


def _row_facts(result: Result) -> dict[str, Any]:
    regions = {"whole": result.whole, "short": result.short, "long": result.long}
    return {
        "label": result.row.label,
        "method": result.row.method,
        "factor": result.row.factor,
        "bands": [_band_facts(band) for band in result.bands],
        **{name: None if band is None else _band_facts(band) for name, band in regions.items()},
        "against_pi": _against_facts(result.pi),
        "against_none": _against_facts(result.none),
        "passkeys": [{**asdict(recall), "retrieved": recall.retrieved} for recall in recalls(result)],
        "verdict": result.verdict,
        "advice": result.advice,
    }


def _band_facts(band: Any) -> dict[str, Any]:
    return {name: _finite(getattr(band, name)) for name in NUMBERS}


def _against_facts(against: Against | None) -> dict[str, Any] | None:
    if against is None:
        return None
    return {"name": against.name, "short": _difference(against.short), "long": _difference(against.long)}


def _difference(delta: Difference | None) -> dict[str, Any] | None:
    return None if delta is None else {"mean": delta.mean, "error": _finite(delta.error), "clear": delta.sign != 0}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value  # JSON has no NaN


def to_csv(results: Sequence[Result]) -> str:
    """One line a row and band."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["label", "method", "factor", *NUMBERS])
    for result in results:
        for band in result.bands:
            facts = _band_facts(band)
            writer.writerow([result.row.label, result.row.method, result.row.factor, *(facts[name] for name in NUMBERS)])
    return out.getvalue()
