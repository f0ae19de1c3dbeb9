"""A finished run: what it is as values, as JSON, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ropeconv.longctx.measuring.bands import (
    LossBand,
    Losses,
    band_width,
    measure_band,
    split_bands,
)
from ropeconv.longctx.tune.recipe import Recipe
from ropeconv.longctx.tune.trainer import Step
from ropeconv.model import Model


@dataclass(frozen=True)
class Processes:
    """peak_memory: bytes that each process held at most until the training was over, of its GPU or
    else of its own; sharded: whether each held no more than a share of the weights.
    """

    peak_memory: Sequence[int]
    sharded: bool


@dataclass(frozen=True)
class Tuned:
    """before, after: held-out losses by band; whole_*: over the whole held-out text."""

    out: Path
    model: Model
    recipe: Recipe
    steps: Sequence[Step]
    before: Sequence[LossBand]
    after: Sequence[LossBand]
    whole_before: LossBand
    whole_after: LossBand
    processes: Processes


def tuned(
    model: Model,
    recipe: Recipe,
    steps: Sequence[Step],
    *,
    out: Path,
    before: Losses,
    after: Losses,
    processes: Processes,
) -> Tuned:
    """The run, its held-out losses summed up."""
    width = band_width(before)
    end = len(before) + 1
    return Tuned(
        out=out,
        model=model,
        recipe=recipe,
        steps=steps,
        before=split_bands(before, width),
        after=split_bands(after, width),
        whole_before=measure_band(before, 0, end),
        whole_after=measure_band(after, 0, end),
        processes=processes,
    )


def tuned_facts(found: Tuned) -> dict[str, Any]:
    """The run as JSON values: recipe, held-out losses, every step."""
    rope = found.model.main_rope
    return {
        "out": str(found.out),
        "scaling": rope.kind,
        "original_context": rope.original_context,
        "context": rope.context,
        "recipe": asdict(found.recipe),
        "processes": asdict(found.processes),
        "held_out": {
            "before": [asdict(band) for band in found.before],
            "after": [asdict(band) for band in found.after],
            "perplexity_before": found.whole_before.perplexity,
            "perplexity_after": found.whole_after.perplexity,
        },
        "steps": [asdict(step) for step in found.steps],
    }


def render(found: Tuned, console: Any) -> None:
    """Held-out perplexity by position, before and after."""
    from rich.table import Table

    rope = found.model.main_rope
    lengths = f"{rope.original_context} -> {rope.context} tokens ({rope.kind})"
    table = Table(title=f"held-out perplexity by position, {lengths}")
    for name in ("positions", "before", "after"):
        table.add_column(name, justify="right")
    bands = zip(found.before, found.after, strict=True)
    for before, after in (*bands, (found.whole_before, found.whole_after)):
        positions = f"{before.start}-{before.stop - 1}"
        table.add_row(positions, f"{before.perplexity:.2f}", f"{after.perplexity:.2f}")
    console.print(table)
