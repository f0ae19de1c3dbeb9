"""`ropeconv inspect`: what a checkpoint, GGUF file or ONNX folder is, and what its RoPE settings
will be misread as.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ropeconv.commands._options import (
    base_option,
    revision_option,
    scaling_options,
    scaling_request,
    vouching_option,
)
from ropeconv.commands._report import fetch_source, wide_console
from ropeconv.errors import RopeconvError

if TYPE_CHECKING:
    from ropeconv.inspection.look import Look


@click.command(
    "inspect", short_help="Say what a model is, what can carry it, and what is wrong with it."
)
@click.argument("source")
@revision_option
@base_option
@scaling_options
@vouching_option
@click.option(
    "--fix", is_flag=True, help="Write a copy without the traps that were found; needs -o."
)
@click.option(
    "--keep", multiple=True, metavar="NAME", help="A trap that --fix leaves as it is (T9)."
)
@click.option(
    "--link", is_flag=True, help="--fix: hard-link unchanged weight files instead of copying them."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Folder or file that --fix writes.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw the spectrum before and after (.png, .svg).",
)
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON on stdout.")
@click.option("--debug", is_flag=True, help="Tracebacks for errors.")
def command(
    source: str,
    *,
    fix: bool,
    keep: tuple[str, ...],
    link: bool,
    output: Path | None,
    plot: Path | None,
    force: bool,
    as_json: bool,
    debug: bool,  # noqa: ARG001 - read by cli.main
    original_context: int | None,
    revision: str | None,
    base: str | None,
    ignore_config_key: tuple[str, ...],
    **scaling: Any,
) -> int:
    """Look at SOURCE: family, sizes, rotary embedding, bytes, what each target can carry, traps.

    SOURCE is a Hugging Face folder, a GGUF file, an ONNX folder or a hub id. A scaling option shows
    the model with it. Exit 1: a trap makes the file's meaning doubtful, or the model cannot be
    converted.

    \b
    Examples:
      ropeconv inspect model/
      ropeconv inspect model/ --yarn-factor 4 --plot spectrum.png
      ropeconv inspect model.gguf --fix -o mended.gguf
    """
    request = scaling_request(scaling)
    if fix != (output is not None):
        raise click.UsageError("--fix and -o go together")
    if fix and request is not None:
        raise click.UsageError(
            "--fix writes what the source means; scale the mended copy afterwards"
        )
    from ropeconv.inspection.look import look
    from ropeconv.inspection.report import render, to_json

    source = fetch_source(source, revision=revision, show=not as_json)
    base = None if base is None else fetch_source(base, show=not as_json)
    found = look(
        source, request, original_context=original_context, base=base, ignore=ignore_config_key
    )
    if plot is not None:
        _draw(source, found, plot, force=force)
    if output is None:
        _print(to_json(found) if as_json else None, lambda console: render(found, console))
        return 0 if found.sound else 1
    from ropeconv.inspection.mend import mend, mended_facts
    from ropeconv.inspection.report import render_mend

    mended = mend(
        source, output, original_context=original_context, keep=keep, force=force, link=link
    )
    _print(
        {**to_json(found), "fix": mended_facts(mended)} if as_json else None,
        lambda console: render_mend(mended, console),
    )
    return 0


def _draw(source: str, found: Look, plot: Path, *, force: bool) -> None:
    if found.scaled is None:
        raise RopeconvError(f"{source}: nothing to draw ({found.refusal or 'not a checkpoint'})")
    from ropeconv.inspection.plot import plot_spectrum

    plot_spectrum(found.scaled, plot, title=_title(source, found.facts), force=force)


def _title(source: str, facts: dict[str, Any]) -> str:
    return f"{Path(source).name}: {facts['original_context']} to {facts['context']} tokens"


def _print(values: dict[str, Any] | None, render: Any) -> None:
    if values is not None:
        click.echo(json.dumps(values))
        return
    render(wide_console())
