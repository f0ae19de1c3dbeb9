"""`ropeconv search`: LongRoPE's per-pair factors for one model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ropeconv.commands._report import stage_progress, wide_console

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("search", short_help="Search LongRoPE factors for a model; writes rope_parameters for every command.")
@click.argument("source")
@click.option("--factor", type=float, required=True, metavar="S", help="s = L'/L.")
@click.option(
    "--guide", type=click.Choice(["needle", "perplexity"]), default="needle", show_default=True,
    help="needle: the loss of hidden pass keys; perplexity: of a text.",
)  # fmt: skip
@click.option(
    "--procedure", type=click.Choice(["cmaes", "longrope"]), default="cmaes", show_default=True,
    help="cmaes: a few numbers, for CPUs; longrope: the published evolution, 1344 candidates, for GPUs.",
)  # fmt: skip
@click.option("--minutes", type=float, metavar="M", help="Budget. Default: 15 for cmaes without --evaluations.")
@click.option("--evaluations", type=click.IntRange(1), metavar="N", help="Budget in guiding losses: candidates times prompts.")
@click.option("--guide-prompts", type=click.IntRange(1), default=4, show_default=True, metavar="N", help="Prompts of the guide.")
@click.option("--guide-tokens", type=int, default=1024, show_default=True, metavar="N", help="Tokens of a prompt.")
@click.option("--full-length", is_flag=True, help="Prompts of L' tokens instead of short ones with skipped positions.")
@click.option("--text", type=FILE, metavar="FILE", help="Text of the perplexity guide. Default: tkinter/__init__.py.")
@click.option("--held-out", type=FILE, multiple=True, metavar="FILE", help="Text of the final check. Default: _pydecimal.py.")
@click.option(
    "--held-out-tokens", type=click.IntRange(0), metavar="N", help="Its length; 0: no check. Default: L', at most 16384."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of prompts and evolution.")
@click.option("--original-context", type=int, metavar="N", help="Trained context, when the config does not say.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted search of the same options.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="FILE.json", help="What to write."
)
@click.option("--force", is_flag=True, help="Replace an existing output or interrupted search.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.option("--debug", is_flag=True, help="Tracebacks for errors.")
def command(source: str, *, output: Path, as_json: bool, quiet: bool, original_context: int | None, **options: Any) -> int:
    """Search SOURCE's rotary factors for S times its context: a divisor for each pair, never falling, at most 1.25 S.

    Begins with PI, NTK-aware, critical-dimension NTK, NTK-by-parts, YaRN and Llama 3, and goes by short prompts whose
    positions are spread over L'. At the end the result and its seeds run on a long held-out text, and it is said plainly
    when the search did not beat the best of them. FILE.json goes into --rope-parameters of every command. Each loss is
    kept as soon as it is known: --resume goes on after an interrupt. Under `accelerate launch -m ropeconv` the losses are
    shared out among the processes.

    \b
    Examples:
      ropeconv search model/ --factor 4 -o factors.json
      ropeconv search model/ --factor 4 --guide perplexity --minutes 60 -o factors.json
      ropeconv gguf model/ --rope-parameters factors.json -o model-x4.gguf
    """
    from ropeconv.longctx.search import Plan, search, searched_facts

    options.pop("debug")  # cli.main reads it
    resume, force = options.pop("resume"), options.pop("force")
    if options["minutes"] is None and options["evaluations"] is None and options["procedure"] == "cmaes":
        options["minutes"] = 15.0
    names = {"guide_prompts": "prompts", "guide_tokens": "tokens", "full_length": "full"}
    plan = Plan(**{names.get(name, name): value for name, value in options.items()})
    with stage_progress(show=not (quiet or as_json), lines=True) as progress:
        found = search(source, plan, output, original_context=original_context, resume=resume, force=force, progress=progress)
    if found is None:
        return 0
    if as_json:
        click.echo(json.dumps(searched_facts(found), allow_nan=False))
    else:
        _show(found)
    return 0


def _show(found: Any) -> None:
    from rich.table import Table

    from ropeconv.longctx.search import verdict

    table = Table(title=f"{found.losses} losses in {found.generations} generations, guide: {found.plan.guide}")
    for name in ("factors", "guide loss", "held-out perplexity, whole", "past the trained length"):
        table.add_column(name, justify="left" if name == "factors" else "right")
    held = {} if found.held is None else {result.row.label: result for result in found.held.results}
    for name, loss in sorted(found.scores.items(), key=lambda item: item[1]):
        result = held.get(name)
        whole = "-" if result is None else f"{result.whole.perplexity:.2f}"
        past = "-" if result is None or result.long is None else f"{result.long.perplexity:.2f}"
        table.add_row(name, f"{loss:.3f}", whole, past)
    wide_console().print(table)
    if found.correlation == found.correlation:
        click.echo(f"rank correlation of guide and held-out loss over these rows: {found.correlation:.2f}")
    if found.unwritable is not None:
        click.echo(f"with plain tokens at the start the guide loss would be {found.unwritable:.3f}; no file format carries them")
    click.echo(verdict(found))
    click.echo(f"written: {found.out}; next: ropeconv gguf MODEL --rope-parameters {found.out}")
