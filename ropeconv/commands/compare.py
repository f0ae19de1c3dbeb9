"""`ropeconv compare`: which way to a longer context serves this model, on the same text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ropeconv.commands._fields import KINDS, click_options, from_options
from ropeconv.commands._options import (
    base_option,
    read_parameters,
    revision_option,
    vouching_option,
)
from ropeconv.commands._report import fetch_sources, stage_progress, wide_console
from ropeconv.commands._reporting import Reporting
from ropeconv.longctx.compare.question import Question


@click.command(
    "compare",
    short_help="Measure scaling methods side by side on one text, with a verdict for each.",
)
@click.argument("source")
@revision_option
@base_option
@click_options(Question)
@click.option(
    "--rope-parameters",
    "parameters",
    type=KINDS["file"],
    multiple=True,
    metavar="FILE.json",
    help="A further row: Hugging Face's rope_parameters, as `ropeconv search` writes them. "
    "Repeatable.",
)
@click.option(
    "--original-context",
    type=int,
    metavar="N",
    help="Trained context, when the config does not say.",
)
@vouching_option
@click.option(
    "-o",
    "--output",
    type=KINDS["folder"],
    metavar="DIR",
    help="Folder of the report; rows already in it are not run again. Default: NAME-compare.",
)
@click_options(Reporting)
def command(
    source: str,
    *,
    parameters: Sequence[Path],
    output: Path | None,
    ignore_config_key: tuple[str, ...],
    **values: Any,
) -> int:
    """Compare scaling methods on SOURCE: the same weights, text and positions for each.

    One long pass a row gives the loss at every position; hidden pass keys give retrieval by
    distance. Every row is judged against Position Interpolation of the same factor and against the
    unscaled model. Writes report.html, report.csv and report.json; a run that was interrupted goes
    on with the rows that are missing. Under `accelerate launch -m ropeconv` the rows are shared out
    among the processes.

    \b
    Examples:
      ropeconv compare model/
      ropeconv compare model/ --factors 2,4 --methods none,pi,yarn --tokens 16384
      ropeconv compare model/ --methods none,pi --also tuned/ --also model-x2.gguf --text book.txt
    """
    from ropeconv.longctx.compare.pictures import require_matplotlib
    from ropeconv.longctx.compare.report import render, to_json
    from ropeconv.longctx.compare.report_files import write_report
    from ropeconv.longctx.compare.run import compare
    from ropeconv.prepare import model_name

    require_matplotlib()
    told = from_options(Reporting, values)
    question = replace(from_options(Question, values), parameters=_named(parameters))
    source = fetch_sources(source, values, show=told.bars)
    folder = output or Path(f"{model_name(source) or 'model'}-compare")
    with stage_progress(show=told.bars, lines=True) as progress:
        found = compare(
            source,
            folder,
            question=question,
            ignore_config_keys=ignore_config_key,
            **values,
            progress=progress,
        )
    if found is None:
        return 0
    files = write_report(found, folder)
    if told.as_json:
        click.echo(json.dumps(to_json(found), allow_nan=False))
    else:
        render(found, wide_console())
        click.echo(f"report: {files[0]}")
    return 0


def _named(files: Sequence[Path]) -> dict[str, Any]:
    """rope_parameters by the file's name without its suffix; two files of one name are refused."""
    found = {path.stem: read_parameters(path) for path in files}
    if len(found) < len(files):
        raise click.UsageError("two --rope-parameters files have the same name; rename one")
    return found
