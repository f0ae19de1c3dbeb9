"""`ropeconv compare`: which way to a longer context serves this model, and which file to ship."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
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
from ropeconv.commands._report import (
    fetch_source,
    fetch_sources,
    stage_progress,
    wide_console,
)
from ropeconv.commands._reporting import Reporting
from ropeconv.longctx.compare.files.question import FilesQuestion
from ropeconv.longctx.compare.question import Question

FILES_ONLY = {"reference", "max_bytes"}
OF_BOTH = {
    "sources", "types", "text", "tokens", "base", "revision", "original_context", "output",
    "as_json", "quiet", "debug",
}  # fmt: skip


@click.command(
    "compare",
    short_help="Measure scaling methods, or files of one model, side by side.",
)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE | --types FILE...")
@click.option(
    "--types",
    is_flag=True,
    help="Compare finished files of one model (GGUF files, ONNX folders) instead: which to ship.",
)
@revision_option
@base_option
@click_options(Question, FilesQuestion)
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
def command(sources: tuple[str, ...], *, types: bool, output: Path | None, **values: Any) -> int:
    """Compare scaling methods on SOURCE: the same weights, text and positions for each.

    One long pass a row gives the loss at every position; hidden pass keys give retrieval by
    distance. Every row is judged against Position Interpolation of the same factor and against the
    unscaled model. Writes report.html, report.csv and report.json; a run that was interrupted goes
    on with the rows that are missing. Under `accelerate launch -m ropeconv` the rows are shared out
    among the processes.

    With --types: compare finished files of one model under one scaling by size, KL from PyTorch,
    top-1, perplexity and speed, and say which to ship.

    \b
    Examples:
      ropeconv compare model/
      ropeconv compare model/ --factors 2,4 --methods none,pi,yarn --tokens 16384
      ropeconv compare model/ --methods none,pi --also tuned/ --also model-x2.gguf --text book.txt
      ropeconv compare model/ --use-length 16384 --use-price 0.02
      ropeconv compare --types model-Q4_K_M.gguf model-Q8_0.gguf model-int4-onnx --max-bytes 120M
    """
    from ropeconv.longctx.compare.pictures import require_matplotlib

    _check_mode(types=types)
    require_matplotlib()
    told = from_options(Reporting, values)
    if types:
        return _types(sources, output, told, values)
    if len(sources) > 1:
        raise click.UsageError(
            f"{sources[1]}: compare takes one SOURCE; give further checkpoints and files with "
            f"--also, or finished files of one model with --types"
        )
    return _methods(sources[0], output, told, values)


def _check_mode(*, types: bool) -> None:
    """UsageError for an option of the other kind of comparison."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    given = {
        parameter.name: parameter.opts[-1]
        for parameter in context.command.params
        if context.get_parameter_source(str(parameter.name)) is not default
    }
    for name, option in given.items():
        if types and name not in OF_BOTH | FILES_ONLY:
            raise click.UsageError(f"{option} belongs to a comparison of methods, not to --types")
        if not types and name in FILES_ONLY:
            raise click.UsageError(f"{option} belongs to --types")


def _methods(source: str, output: Path | None, told: Reporting, values: dict[str, Any]) -> int:
    from ropeconv.longctx.compare.page import to_html
    from ropeconv.longctx.compare.report import render, to_csv, to_json
    from ropeconv.longctx.compare.run import compare
    from ropeconv.prepare import model_name

    from_options(FilesQuestion, values)
    parameters = _named(values.pop("parameters"))
    question = replace(from_options(Question, values), parameters=parameters)
    source = fetch_sources(source, values, show=told.bars)
    folder = output or Path(f"{model_name(source) or 'model'}-compare")
    ignored: Collection[str] = values.pop("ignore_config_key")
    with stage_progress(show=told.bars, lines=True) as progress:
        found = compare(
            source,
            folder,
            question=question,
            ignore_config_keys=ignored,
            **values,
            progress=progress,
        )
    if found is None:
        return 0
    facts = to_json(found)
    show = None if told.as_json else lambda: render(found, wide_console())
    return _report(folder, to_html(found), to_csv(found.results), facts, show=show)


def _types(
    sources: Sequence[str], output: Path | None, told: Reporting, values: dict[str, Any]
) -> int:
    from ropeconv.longctx.compare.files.report import render, to_csv, to_html, to_json
    from ropeconv.longctx.compare.files.run import compare_files

    common = from_options(Question, values)
    question = replace(
        from_options(FilesQuestion, values),
        text=common.text,
        tokens=common.tokens,
        original_context=values["original_context"],
        base=values["base"],
    )
    revision = values["revision"]
    if revision is not None and question.reference is None:
        raise click.UsageError("--revision belongs to a SOURCE or a --reference that is a hub id")
    if question.reference is not None:
        reference = fetch_source(question.reference, revision=revision, show=told.bars)
        question = replace(question, reference=reference)
    folder = output or Path("types-compare")
    with stage_progress(show=told.bars, lines=True) as progress:
        found = compare_files(sources, folder, question=question, progress=progress)
    if found is None:
        return 0
    show = None if told.as_json else lambda: render(found, wide_console())
    return _report(folder, to_html(found), to_csv(found), to_json(found), show=show)


def _report(
    folder: Path,
    page: str,
    table: str,
    facts: Mapping[str, Any],
    *,
    show: Callable[[], None] | None,
) -> int:
    """Write the report and print it. show: the table for eyes; None: JSON is asked for."""
    from ropeconv.longctx.compare.report_files import write_report

    files = write_report(folder, page=page, table=table, values=facts)
    if show is None:
        click.echo(json.dumps(facts, allow_nan=False))
    else:
        show()
        click.echo(f"report: {files[0]}")
    return 0


def _named(files: Sequence[Path]) -> dict[str, Any]:
    """rope_parameters by the file's name without its suffix; two files of one name are refused."""
    found = {path.stem: read_parameters(path) for path in files}
    if len(found) < len(files):
        raise click.UsageError("two --rope-parameters files have the same name; rename one")
    return found
