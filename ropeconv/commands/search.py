"""`ropeconv search`: LongRoPE factors for one model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ropeconv.commands._fields import KINDS, click_options, from_options
from ropeconv.commands._options import base_option, revision_option, vouching_option
from ropeconv.commands._report import fetch_sources, stage_progress, wide_console
from ropeconv.commands._reporting import Reporting
from ropeconv.longctx.search.plan import Plan


@click.command(
    "search",
    short_help="Search LongRoPE factors for a model; writes rope_parameters for every command.",
)
@click.argument("source")
@revision_option
@base_option
@click_options(Plan)
@click.option(
    "--original-context",
    type=int,
    metavar="N",
    help="Trained context, when the config does not say.",
)
@vouching_option
@click.option(
    "--resume", is_flag=True, help="Go on with an interrupted search of the same options."
)
@click.option(
    "-o",
    "--output",
    type=KINDS["new file"],
    required=True,
    metavar="FILE.json",
    help="What to write.",
)
@click.option("--force", is_flag=True, help="Replace an existing output or interrupted search.")
@click_options(Reporting)
def command(source: str, *, output: Path, ignore_config_key: tuple[str, ...], **values: Any) -> int:
    """Search SOURCE's rotary factors for S times its context: a divisor for each pair, never
    falling, at most 1.25 S.

    Begins with PI, NTK-aware, critical-dimension NTK, NTK-by-parts, YaRN and Llama 3, and goes by
    short prompts whose positions are spread over L'. At the end the result and its seeds run on a
    long held-out text, and it is said plainly when the search did not beat the best of them.
    FILE.json goes into --rope-parameters of every command. Each loss is kept as soon as it is
    known: --resume goes on after an interrupt. Under `accelerate launch -m ropeconv` the losses are
    shared out among the processes.

    \b
    Examples:
      ropeconv search model/ --factor 4 -o factors.json
      ropeconv search model/ --factor 4 --guide perplexity --minutes 60 -o factors.json
      ropeconv gguf model/ --rope-parameters factors.json -o model-x4.gguf
    """
    from ropeconv.longctx.search.report import searched_facts
    from ropeconv.longctx.search.run import search

    told = from_options(Reporting, values)
    plan = from_options(Plan, values)
    source = fetch_sources(source, values, show=told.bars)
    with stage_progress(show=told.bars, lines=True) as progress:
        found = search(
            source,
            output,
            plan=plan,
            ignore_config_keys=ignore_config_key,
            **values,
            progress=progress,
        )
    if found is None:
        return 0
    if told.as_json:
        click.echo(json.dumps(searched_facts(found), allow_nan=False))
    else:
        _show(found)
    return 0


def _show(found: Any) -> None:
    from ropeconv.longctx.search.report import render, verdict

    render(found, wide_console())
    if found.correlation == found.correlation:  # no NaN
        click.echo(
            f"rank correlation of guide and held-out loss over these rows: {found.correlation:.2f}"
        )
    if found.unwritable is not None:
        click.echo(
            f"with plain tokens at the start the guide loss would be {found.unwritable:.3f}; "
            f"no file format carries them"
        )
    click.echo(verdict(found))
    click.echo(f"written: {found.out}; next: ropeconv gguf MODEL --rope-parameters {found.out}")
