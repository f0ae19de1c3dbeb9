"""A comparison as a table on the terminal, as JSON values, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ropeconv.longctx.compare.run import Comparison, Part, Result
from ropeconv.longctx.compare.uses import describe_best
from ropeconv.longctx.compare.verdicts import Against
from ropeconv.longctx.measuring.bands import LossBand
from ropeconv.longctx.measuring.differences import Difference
from ropeconv.longctx.measuring.passkeys import PASSKEY
from ropeconv.longctx.measuring.records import json_number
from ropeconv.longctx.measuring.variants import UNSCALED

NUMBERS = ("start", "stop", "loss", "error", "tokens", "perplexity")


def render(found: Comparison, console: Any) -> None:
    """Perplexity by band, the price below L, what was retrieved, then a verdict a line; the same
    for every text and length.
    """
    for part in found.parts:
        console.print(_perplexities(found, part))
        console.print(_verdicts(found, part))
        if any(name != PASSKEY for name in part.tasks):
            console.print(_retrievals(part))
    for variant in found.refused:
        console.print(f"{variant.label}: refused: {variant.refusal}", markup=False)
    if found.best is not None:
        console.print(describe_best(found.best), markup=False)


def _perplexities(found: Comparison, part: Part) -> Any:
    trained = found.model.main_rope.original_context
    title = f"{found.source}: perplexity by position, {part.words}, trained {trained}"
    bands = [f"{band.start}-" for band in part.results[0].bands]
    table = _table(title, [*bands, "whole", "below L", "pass keys", "key loss"])
    for result in part.results:
        measured = (*result.bands, result.whole, result.short)
        cells = [perplexity_words(band.perplexity) for band in measured]
        table.add_row(result.variant.label, *cells, *_passkey_cells(result))
    return table


def _retrievals(part: Part) -> Any:
    """Keys retrieved by task."""
    table = _table(f"keys retrieved, {part.words}", part.tasks)
    for result in part.results:
        table.add_row(result.variant.label, *(retrieved_words(result, name) for name in part.tasks))
    return table


def _verdicts(found: Comparison, part: Part) -> Any:
    """Differences of the same tokens' losses; a star marks the clear ones."""
    trained = found.model.main_rope.original_context
    title = (
        "loss against the unscaled model and against PI: nats a token, below 0 is better, "
        "* is clear"
    )
    regions = [f"{w} {trained}" for w in ("none, past", "none, below", "PI, past", "PI, below")]
    table = _table(title, [*(["cache"] if part.caches else []), *regions])
    table.add_column("verdict")
    for result in part.results:
        cells = [result.variant.cache] if part.caches else []
        cells += [_cell(delta) for other in (result.none, result.pi) for delta in _regions(other)]
        plain = "the baseline" if result.variant.method == UNSCALED else ""
        table.add_row(result.variant.label, *cells, result.advice or plain)
    return table


def _table(title: str, numbers: Sequence[str]) -> Any:
    """An empty table: a column for the method, then columns of numbers."""
    from rich.table import Table

    table = Table(title=title)
    table.add_column("method", no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _regions(against: Against | None) -> tuple[Difference | None, Difference | None]:
    return (None, None) if against is None else (against.long, against.short)


def _cell(delta: Difference | None) -> str:
    if delta is None:
        return "-"
    return f"{delta.mean:+.3f} ± {delta.error:.3f}{'*' if delta.sign else ' '}"


def perplexity_words(value: float) -> str:
    """As tables have it."""
    return f"{value:.2f}" if value < 100 else f"{value:.0f}" if value < 1e6 else f"{value:.1e}"


def _passkey_cells(result: Result) -> tuple[str, str]:
    keys = result.measured.recalls()
    loss = f"{sum(recall.loss for recall in keys) / len(keys):.2f}" if keys else "-"
    return retrieved_words(result, PASSKEY), loss


def retrieved_words(result: Result, task: str) -> str:
    """How many keys of how many."""
    recalls = result.measured.recalls(task)
    return f"{sum(recall.retrieved for recall in recalls)}/{len(recalls)}" if recalls else "-"


def to_json(found: Comparison) -> dict[str, Any]:
    """Everything but the loss of every token, which lies in the folder's rows."""
    rope = found.model.main_rope
    return {
        "source": found.source,
        "original_context": rope.original_context,
        "tokens": found.tokens,
        "rows": [_result_facts(result) for result in found.results],
        "refused": [{"label": v.label, "reason": v.refusal} for v in found.refused],
        "best": None if found.best is None else asdict(found.best),
    }


def _result_facts(result: Result) -> dict[str, Any]:
    others = [name for name in result.measured.retrieval if name != PASSKEY]
    return {
        "text": result.text,
        "length": result.length,
        "label": result.variant.label,
        "method": result.variant.method,
        "factor": result.variant.factor,
        "cache": result.variant.settings.kv_type,
        "bands": [band_facts(band) for band in result.bands],
        "whole": band_facts(result.whole),
        "short": band_facts(result.short),
        "long": None if result.long is None else band_facts(result.long),
        "against_pi": _against_facts(result.pi),
        "against_none": _against_facts(result.none),
        "passkeys": _recall_facts(result, PASSKEY),
        "retrieval": {name: _recall_facts(result, name) for name in others},
        "verdict": result.verdict,
        "advice": result.advice,
    }


def _recall_facts(result: Result, task: str) -> list[dict[str, Any]]:
    recalls = result.measured.recalls(task)
    return [{**asdict(recall), "retrieved": recall.retrieved} for recall in recalls]


def band_facts(band: LossBand) -> dict[str, Any]:
    """A band as JSON values."""
    return {name: json_number(getattr(band, name)) for name in NUMBERS}


def _against_facts(against: Against | None) -> dict[str, Any] | None:
    if against is None:
        return None
    regions = {"short": against.short, "long": against.long}
    return {"name": against.name} | {w: _difference_facts(d) for w, d in regions.items()}


def _difference_facts(delta: Difference | None) -> dict[str, Any] | None:
    if delta is None:
        return None
    return {"mean": delta.mean, "error": json_number(delta.error), "clear": delta.sign != 0}


def to_csv(results: Sequence[Result]) -> str:
    """One line a text, length, variant and band."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["text", "length", "label", "method", "factor", *NUMBERS])
    for result in results:
        variant = result.variant
        for band in result.bands:
            facts = band_facts(band)
            names = [result.text, result.length, variant.label, variant.method, variant.factor]
            writer.writerow([*names, *facts.values()])
    return out.getvalue()
