"""The command of a target, made of what the target declares: its Options, its Manual."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ropeconv import api
from ropeconv.commands._fields import click_options, from_options
from ropeconv.commands._options import (
    base_option,
    revision_option,
    scaling_options,
    scaling_request,
    vouching_option,
)
from ropeconv.commands._report import (
    byte_progress,
    conversion_facts,
    fetch_sources,
    show_conversion,
)
from ropeconv.target import Options

if TYPE_CHECKING:
    from ropeconv.finding import Finding
    from ropeconv.target import Manual, Target

F = TypeVar("F", bound=Callable[..., Any])


def make_command(target: Target) -> click.Command:
    """`ropeconv NAME SOURCE ...` for a target."""

    @click.command(target.name, short_help=target.manual.summary, help=target.manual.text)
    @click.argument("source")
    @revision_option
    @base_option
    @scaling_options
    @click_options(target.options, last=Options)
    @_reading_and_reporting(target.manual)
    def command(source: str, **values: Any) -> None:
        _convert(target, source, values)

    return command


def _reading_and_reporting(manual: Manual) -> Callable[[F], F]:
    """The options beside the target's own: what is read, where to, what is said of it."""
    options = (
        vouching_option,
        click.option(
            "-o",
            "--output",
            type=click.Path(path_type=Path),
            metavar=manual.output,
            required=manual.output_required,
            help=manual.output_help,
        ),
        click.option("--json", "as_json", is_flag=True, help="Report as JSON on stdout."),
        click.option("--quiet", is_flag=True, help="No progress bar."),
        click.option("--debug", is_flag=True, help="Tracebacks for errors."),
    )

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _convert(target: Target, source: str, values: dict[str, Any]) -> None:
    """Prepare `source`, write it, report."""
    options = from_options(target.options, values)
    request = scaling_request(values)
    output = values["output"]
    as_json = values["as_json"]
    dry_run = options.dry_run
    show = not (values["quiet"] or as_json)
    source = fetch_sources(source, values, show=show)
    with byte_progress("writing", show=show and not dry_run) as progress:
        done = api.write(
            source,
            target.name,
            output,
            options=options,
            scaling=request,
            original_context=values["original_context"],
            base=values["base"],
            ignore=values["ignore_config_key"],
            progress=progress,
        )
    if as_json:
        facts = conversion_facts(done.model, done.emitted, dry_run=dry_run)
        told = [_finding_facts(finding) for finding in done.findings]
        click.echo(json.dumps(facts | {"findings": told}))
        return
    artefact = output if target.manual.folder else None
    show_conversion(done.model, done.emitted, dry_run=dry_run, artefact=artefact)
    for finding in done.findings:
        click.echo(finding.note(target.runtimes), err=True)


def _finding_facts(finding: Finding) -> dict[str, Any]:
    names = ("name", "severity", "what", "effects", "advice")
    return {name: getattr(finding, name) for name in names}
