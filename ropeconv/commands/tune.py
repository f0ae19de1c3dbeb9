"""`ropeconv tune`: the short fine-tune that a longer context wants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ropeconv.commands._fields import KINDS, click_options, from_options
from ropeconv.commands._options import (
    base_option,
    revision_option,
    scaling_options,
    scaling_request,
    vouching_option,
)
from ropeconv.commands._report import fetch_sources, stage_progress, wide_console
from ropeconv.commands._reporting import Reporting
from ropeconv.longctx.tune.recipe import Choices, Recipe


@click.command(
    "tune", short_help="Fine-tune a model shortly at its longer context; writes a checkpoint."
)
@click.argument("source")
@revision_option
@base_option
@scaling_options
@vouching_option
@click_options(Recipe, Choices)
@click.option(
    "-o",
    "--output",
    type=KINDS["path"],
    required=True,
    metavar="DIR",
    help="Folder to write.",
)
@click_options(Reporting)
def command(
    source: str,
    *,
    output: Path,
    original_context: int | None,
    ignore_config_key: tuple[str, ...],
    **values: Any,
) -> int:
    """Tune SOURCE at the context that a scaling option gives it (or that it has), and write an
    ordinary checkpoint.

    PoSE by default: windows of --window tokens whose positions skip ahead, so that every distance
    up to L' is met at the cost of short texts. Held-out losses by position are measured before and
    after. Ctrl-C finishes the step and saves it; --resume goes on. Under `accelerate launch -m
    ropeconv` the same recipe runs on many devices: data-parallel, or with --use_fsdp --fsdp_version
    2 each of them holding a share of the weights.

    \b
    Examples:
      ropeconv tune model/ --pi-factor 2 -o tuned/
      ropeconv tune model/ --yarn-factor 4 --lora-rank 8 --steps 200 --text book.txt -o tuned/
      accelerate launch --multi_gpu --num_processes 4 -m ropeconv tune model/ --pi-factor 4 \\
        --batch-size 8 -o tuned/
      accelerate launch --use_fsdp --fsdp_version 2 --num_processes 8 -m ropeconv tune model/ \\
        --pi-factor 4 --batch-size 8 --gradient-checkpointing -o tuned/
      ropeconv gguf tuned/ -o tuned.gguf
    """
    from ropeconv.longctx.tune.report import tuned_facts
    from ropeconv.longctx.tune.run import tune

    told = from_options(Reporting, values)
    recipe = from_options(Recipe, values)
    choices = from_options(Choices, values)
    scaling = scaling_request(values)
    source = fetch_sources(source, values, show=told.bars)
    with stage_progress(show=told.bars, lines=True) as progress:
        found = tune(
            source,
            output,
            scaling=scaling,
            recipe=recipe,
            choices=choices,
            original_context=original_context,
            base=values["base"],
            ignore_config_keys=ignore_config_key,
            progress=progress,
        )
    if found is None:
        return 0
    if told.as_json:
        click.echo(json.dumps(tuned_facts(found), allow_nan=False))
    else:
        _show(found)
    return 0


def _show(found: Any) -> None:
    from ropeconv.longctx.tune.report import render

    render(found, wide_console())
    seconds = sum(step.seconds for step in found.steps)
    last = found.steps[-1].loss
    click.echo(f"{len(found.steps)} steps in {seconds / 60:.1f} minutes, last loss {last:.3f}")
    click.echo(f"written: {found.out}; next: ropeconv gguf {found.out}")
