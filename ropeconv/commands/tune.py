"""`ropeconv tune`: the short fine-tune that a longer context wants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ropeconv.commands._options import scaling_options, scaling_request
from ropeconv.commands._report import stage_progress, wide_console

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("tune", short_help="Fine-tune a model shortly at its longer context; writes a checkpoint.")
@click.argument("source")
@scaling_options
@click.option("--text", type=FILE, multiple=True, metavar="FILE", help="Training text. Default: the standard library's modules.")
@click.option("--held-out", type=FILE, multiple=True, metavar="FILE", help="Text to measure on. Default: _pydecimal.py.")
@click.option("--held-out-tokens", type=click.IntRange(16), metavar="N", help="Its length. Default: L', at most 16384.")
@click.option("--steps", type=int, default=100, show_default=True, help="Optimizer steps.")
@click.option("--batch-size", type=int, default=1, show_default=True, help="Examples a step, over all processes.")
@click.option("--window", type=int, default=2048, show_default=True, help="Tokens of an example.")
@click.option(
    "--windows", type=click.Choice(["pose", "full"]), default="pose", show_default=True,
    help="pose: short windows with skipped positions up to L'; full: windows of L' tokens.",
)  # fmt: skip
@click.option("--learning-rate", type=float, default=1e-4, show_default=True, help="AdamW's, at its highest.")
@click.option("--warmup", type=int, default=10, show_default=True, help="Steps of linear warm-up.")
@click.option("--schedule", type=click.Choice(["constant", "linear", "cosine"]), default="constant", show_default=True)
@click.option("--clip", type=float, default=1.0, show_default=True, help="Largest norm of the gradient.")
@click.option("--weight-decay", type=float, default=0.0, show_default=True)
@click.option(
    "--lora-rank", type=click.IntRange(0), default=0, show_default=True, metavar="R",
    help="0: every weight. R: adapters on attention, with norms and embeddings in full; merged on writing.",
)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True,
    help="Of the arithmetic; weights stay float32. auto: bf16 where the device has it.",
)  # fmt: skip
@click.option("--gradient-checkpointing", is_flag=True, help="Less memory for more time.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of examples and adapters.")
@click.option(
    "--dtype",
    type=click.Choice(["F32", "F16", "BF16"], case_sensitive=False),
    help="Written weights. Default: the source's.",
)
@click.option("--save-every", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="Steps between states.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run of the same options.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder to write.")
@click.option("--force", is_flag=True, help="Replace an existing output or interrupted run.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.option("--debug", is_flag=True, help="Tracebacks for errors.")
def command(source: str, *, output: Path, as_json: bool, quiet: bool, original_context: int | None, **options: Any) -> int:
    """Tune SOURCE at the context that a scaling option gives it (or that it has), and write an ordinary checkpoint.

    PoSE by default: windows of --window tokens whose positions skip ahead, so that every distance up to L' is met at the
    cost of short texts. Held-out losses by position are measured before and after. Ctrl-C finishes the step and saves it;
    --resume goes on. Under `accelerate launch -m ropeconv` the same recipe runs data-parallel.

    \b
    Examples:
      ropeconv tune model/ --pi-factor 2 -o tuned/
      ropeconv tune model/ --yarn-factor 4 --lora-rank 8 --steps 200 --text book.txt -o tuned/
      accelerate launch --num_processes 4 -m ropeconv tune model/ --pi-factor 4 --batch-size 64 -o tuned/
      ropeconv gguf tuned/ -o tuned.gguf
    """
    from ropeconv.longctx.recipe import Recipe
    from ropeconv.longctx.tune import Choices, tune, tuned_facts

    options.pop("debug")  # cli.main reads it
    recipe = Recipe(
        batch=options.pop("batch_size"),
        skip=options.pop("windows") == "pose",
        **{name: options.pop(name) for name in RECIPE},
    )
    choices = Choices(
        tokens=options.pop("held_out_tokens"),
        checkpointing=options.pop("gradient_checkpointing"),
        **{name: options.pop(name) for name in ("text", "held_out", "dtype", "save_every", "resume", "force")},
    )
    request = scaling_request(options)
    with stage_progress(show=not (quiet or as_json), lines=True) as progress:
        tuned = tune(
            source, request, output, recipe=recipe, choices=choices, original_context=original_context, progress=progress
        )
    if tuned is None:
        return 0
    if as_json:
        click.echo(json.dumps(tuned_facts(tuned), allow_nan=False))
    else:
        _show(tuned)
    return 0


RECIPE = (
    "steps", "window", "learning_rate", "warmup", "schedule", "clip", "weight_decay", "lora_rank", "precision", "seed",
)  # fmt: skip


def _show(tuned: Any) -> None:
    from rich.table import Table

    rope = tuned.model.main_rope
    table = Table(title=f"held-out perplexity by position, {rope.original_context} -> {rope.context} tokens ({rope.kind})")
    for name in ("positions", "before", "after"):
        table.add_column(name, justify="right")
    pairs = [*zip(tuned.before, tuned.after, strict=True), (tuned.whole_before, tuned.whole_after)]
    for before, after in pairs:
        table.add_row(f"{before.start}-{before.stop - 1}", f"{before.perplexity:.2f}", f"{after.perplexity:.2f}")
    wide_console().print(table)
    seconds = sum(step.seconds for step in tuned.steps)
    click.echo(f"{len(tuned.steps)} steps in {seconds / 60:.1f} minutes, last loss {tuned.steps[-1].loss:.3f}")
    click.echo(f"written: {tuned.out}; next: ropeconv gguf {tuned.out}")
