"""What a search found, in plain words and as the file that every command takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ropeconv.longctx.compare.run import Comparison
from ropeconv.longctx.measuring.differences import Difference
from ropeconv.longctx.measuring.records import json_number
from ropeconv.longctx.search.candidates import Candidate, rope_parameters
from ropeconv.longctx.search.plan import Plan
from ropeconv.model import Model

VERDICTS = {
    -1: "the searched factors beat their best seed, {seed}, by {delta} on held-out text",
    0: "the search did not beat its best seed: no clear difference from {seed} ({delta}) on "
    "held-out text",
    1: "the search did not beat its best seed: {seed} is better by {delta} on held-out text; "
    "take that",
}


@dataclass(frozen=True)
class Searched:
    """What was found.

    scores: guide loss of the seeds and of the result, by name; held: the held-out check, or None.
    unwritable: the guide loss that LongRoPE's plain tokens would reach, when lower; no file format
    carries them. best_seed: on the held-out text; difference: the result against it past L;
    correlation: guide against held-out losses.
    """

    out: Path
    model: Model
    plan: Plan
    best: Candidate
    generations: int
    losses: int
    scores: dict[str, float]
    unwritable: float | None
    held: Comparison | None
    best_seed: str
    difference: Difference | None
    correlation: float


def verdict(found: Searched) -> str:
    """Whether the search was worth it, in plain words."""
    seed = found.best_seed
    delta = found.difference
    if delta is None:
        return f"no held-out check was run; on its own guide the best seed is {seed}"
    return VERDICTS[delta.sign].format(seed=seed, delta=delta)


def searched_facts(found: Searched) -> dict[str, Any]:
    """What is written: `rope_parameters`, and how they were found."""
    plan = {
        key: value if isinstance(value, int | float | str | None) else str(value)
        for key, value in asdict(found.plan).items()
    }
    return {
        "rope_parameters": rope_parameters(found.best, found.model, found.plan.factor),
        "search": {
            "plan": plan,
            "generations": found.generations,
            "losses": found.losses,
            "guide_loss": found.scores,
            "guide_loss_with_plain_tokens": found.unwritable,
            "held_out_perplexity_past_trained": _held_out(found.held),
            "rank_correlation": json_number(found.correlation),
            "verdict": verdict(found),
        },
    }


def _held_out(held: Comparison | None) -> dict[str, float | None] | None:
    """Perplexity past the trained length, by name."""
    if held is None:
        return None
    return {
        result.variant.label: None if result.long is None else result.long.perplexity
        for result in held.results
    }


def render(found: Searched, console: Any) -> None:
    """Guide losses and held-out perplexities of the seeds and of the result, best guide first."""
    from rich.table import Table

    title = f"{found.losses} losses in {found.generations} generations, guide: {found.plan.guide}"
    table = Table(title=title)
    table.add_column("factors", justify="left")
    for name in ("guide loss", "held-out perplexity, whole", "past the trained length"):
        table.add_column(name, justify="right")
    held = {} if found.held is None else {r.variant.label: r for r in found.held.results}
    for name, loss in sorted(found.scores.items(), key=lambda item: item[1]):
        result = held.get(name)
        whole = "-" if result is None else f"{result.whole.perplexity:.2f}"
        past = "-" if result is None or result.long is None else f"{result.long.perplexity:.2f}"
        table.add_row(name, f"{loss:.3f}", whole, past)
    console.print(table)
