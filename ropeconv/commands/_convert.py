"""What the converting commands share: options for reading and writing, and the one way from source to report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ropeconv import registry
from ropeconv.commands._options import scaling_request
from ropeconv.commands._report import byte_progress, conversion_facts, show_conversion

F = TypeVar("F", bound=Callable[..., Any])

FINDING = ("name", "severity", "what", "effects", "advice")
BAKE = "metadata: the runtime's own form of the scaling; tables: numbers for each rotary pair or position."


def conversion_options(*, metavar: str, output_help: str, output_required: bool) -> Callable[[F], F]:
    """Add the options that every converting command has; the command receives them for `convert`."""
    options = (
        click.option("--bake", type=click.Choice(["auto", "metadata", "tables"]), default="auto", show_default=True, help=BAKE),
        click.option(
            "--threads", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True, help="Threads that convert."
        ),
        click.option(
            "--ignore-config-key", multiple=True, metavar="KEY", help="A config key that you vouch has no bearing on logits."
        ),
        click.option(
            "-o", "--output", type=click.Path(path_type=Path), metavar=metavar, required=output_required, help=output_help
        ),
        click.option("--force", is_flag=True, help="Replace an existing output."),
        click.option("--dry-run", is_flag=True, help="Say what would be written; write nothing."),
        click.option("--json", "as_json", is_flag=True, help="Report as JSON on stdout."),
        click.option("--quiet", is_flag=True, help="No progress bar."),
        click.option("--debug", is_flag=True, help="Tracebacks for errors."),
    )

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def convert(target: str, source: str, common: dict[str, Any], *, folder: bool, **own: Any) -> None:
    """Prepare `source`, write it as `target`, report.

    common: the values of `conversion_options` and of the scaling options. folder: whether the output is a folder, which is
    then what the report names. own: the target's further options.
    """
    from ropeconv.prepare import huggingface_patch, prepare_with_findings

    output, dry_run, as_json = common.pop("output"), common.pop("dry_run"), common.pop("as_json")
    ignore, trained = common.pop("ignore_config_key"), common.pop("original_context")
    quiet = common.pop("quiet") or as_json or dry_run
    common.pop("debug")  # cli.main reads it
    shared = {name: common.pop(name) for name in ("bake", "threads", "force")}
    model, findings = prepare_with_findings(source, scaling_request(common), original_context=trained, ignore=ignore)
    runtimes = registry.targets()[target].runtimes
    concerning = [finding for finding in findings if finding.concerns(target, runtimes)]
    with byte_progress("writing", show=not quiet) as progress:
        emitted = registry.targets()[target].emit(
            model,
            output,
            huggingface=huggingface_patch(model),
            progress=progress,
            dry_run=dry_run,
            **shared,
            **own,
        )
    if as_json:
        told = [{name: getattr(finding, name) for name in FINDING} for finding in concerning]
        click.echo(json.dumps(conversion_facts(model, emitted, dry_run=dry_run) | {"findings": told}))
        return
    show_conversion(model, emitted, dry_run=dry_run, artefact=output if folder else None)
    for finding in concerning:
        click.echo(finding.note(runtimes), err=True)
