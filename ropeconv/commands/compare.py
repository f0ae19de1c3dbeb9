"""`ropeconv compare`: which way to a longer context serves this model, measured on the same text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ropeconv.commands._options import comma_list, read_parameters
from ropeconv.commands._report import stage_progress, wide_console


@click.command("compare", short_help="Measure scaling methods side by side on one text, with a verdict for each.")
@click.argument("source")
@click.option("--factors", default="2", show_default=True, metavar="F,...", help="Factors s = L'/L.")
@click.option("--methods", metavar="NAME,...", help="none, pi, ntk, yarn, ... Default: every static one.")
@click.option(
    "--rope-parameters",
    "parameters",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE.json",
    help="A further row: Hugging Face's rope_parameters, as `ropeconv search` writes them. Repeatable.",
)
@click.option(
    "--also",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="PATH",
    help="A further row: a tuned checkpoint, or a GGUF file or ONNX folder in its own runtime. Repeatable.",
)
@click.option(
    "--text",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Text to measure on (UTF-8), repeatable. Default: the standard library's _pydecimal.py.",
)
@click.option("--tokens", type=click.IntRange(16), metavar="N", help="Length of the text. Default: L times the largest factor.")
@click.option("--band", type=click.IntRange(2), metavar="N", help="Positions a band. Default: an eighth of the tokens.")
@click.option("--passkeys", type=click.IntRange(0), default=8, show_default=True, help="Pass keys in a prompt; 0: none.")
@click.option("--passkey-trials", type=click.IntRange(1), default=1, show_default=True, help="Prompts.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the pass keys.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True, help="Arithmetic.")
@click.option("--original-context", type=int, metavar="N", help="Trained context, when the config does not say.")
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Folder of the report; rows already in it are not run again. Default: NAME-compare.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Report as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.option("--debug", is_flag=True, help="Tracebacks for errors.")
def command(
    source: str,
    *,
    factors: str,
    methods: str | None,
    parameters: tuple[Path, ...],
    also: tuple[Path, ...],
    text: tuple[Path, ...],
    passkey_trials: int,
    output: Path | None,
    as_json: bool,
    quiet: bool,
    debug: bool,  # noqa: ARG001 - read by cli.main
    original_context: int | None,
    **choices: Any,
) -> int:
    """Compare scaling methods on SOURCE: the same weights, text and positions for each.

    One long pass a row gives the loss at every position; hidden pass keys give retrieval by distance. Every row is judged
    against Position Interpolation of the same factor and against the unscaled model. Writes report.html, report.csv and
    report.json; a run that was interrupted goes on with the rows that are missing. Under `accelerate launch -m ropeconv`
    the rows are shared out among the processes.

    \b
    Examples:
      ropeconv compare model/
      ropeconv compare model/ --factors 2,4 --methods none,pi,yarn --tokens 16384
      ropeconv compare model/ --methods none,pi --also tuned/ --also model-x2.gguf --text book.txt
    """
    from ropeconv.longctx.compare import Question, compare
    from ropeconv.longctx.plot import require_matplotlib
    from ropeconv.longctx.report import render, to_json
    from ropeconv.longctx.rows import default_methods
    from ropeconv.longctx.save import save_report

    require_matplotlib()
    question = Question(
        methods=comma_list(methods) if methods else default_methods(),
        factors=comma_list(factors, of=float),
        also=also,
        parameters=_named(parameters),
        text=text,
        trials=passkey_trials,
        **choices,
    )
    folder = output or Path(f"{Path(source).name or 'model'}-compare")
    with stage_progress(show=not (quiet or as_json), lines=True) as progress:
        found = compare(source, question, folder, original_context=original_context, progress=progress)
    if found is None:
        return 0
    files = save_report(found, folder)
    if as_json:
        click.echo(json.dumps(to_json(found), allow_nan=False))
    else:
        render(found, wide_console())
        click.echo(f"report: {files[0]}")
    return 0


def _named(files: tuple[Path, ...]) -> dict[str, Any]:
    """rope_parameters by the file's name without its suffix; two files of one name are one row too few."""
    found = {path.stem: read_parameters(path) for path in files}
    if len(found) < len(files):
        raise click.UsageError("two --rope-parameters files have the same name; rename one")
    return found
