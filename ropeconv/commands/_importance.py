"""The command that makes a target's importance matrices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ropeconv.commands._fields import KINDS, click_options, from_options
from ropeconv.commands._options import (
    base_option,
    revision_option,
    scaling_options,
    scaling_request,
    vouching_option,
)
from ropeconv.commands._report import fetch_sources, stage_progress
from ropeconv.commands._reporting import Reporting
from ropeconv.proof.importance.question import Question

if TYPE_CHECKING:
    from ropeconv.proof.importance.run import Made
    from ropeconv.target import ImportanceFiles


def make_importance_command(files: ImportanceFiles) -> click.Command:
    """`ropeconv NAME SOURCE ...` for a target's files of importance matrices."""

    @click.command(files.command, short_help=files.manual.summary, help=files.manual.text)
    @click.argument("source")
    @revision_option
    @base_option
    @scaling_options
    @click_options(Question)
    @vouching_option
    @click.option(
        "-o",
        "--output",
        type=KINDS["path"],
        required=files.manual.output_required,
        metavar=files.manual.output,
        help=files.manual.output_help,
    )
    @click_options(Reporting)
    def command(source: str, output: Path, **values: Any) -> None:
        _make(files, source, output, values)

    return command


def _make(files: ImportanceFiles, source: str, output: Path, values: dict[str, Any]) -> None:
    from ropeconv.prepare import prepare
    from ropeconv.proof.importance.run import make_importance

    told = from_options(Reporting, values)
    question = from_options(Question, values)
    request = scaling_request(values)
    source = fetch_sources(source, values, show=told.bars)
    model = prepare(
        source,
        request,
        original_context=values["original_context"],
        base=values["base"],
        ignore=values["ignore_config_key"],
    )
    with stage_progress(show=told.bars, lines=True) as progress:
        made = make_importance(model, output, files=files, question=question, progress=progress)
    facts = _facts(made)
    if told.as_json:
        click.echo(json.dumps(facts))
        return
    for name, value in _rows(facts).items():
        click.echo(f"{name:<8} {value}")


def _facts(made: Made) -> dict[str, Any]:
    found, rope = made.importance, made.model.main_rope
    return {
        "file": str(made.path),
        "bytes": made.path.stat().st_size,
        "family": made.model.arch.name,
        "scaling": rope.kind,
        "original_context": rope.original_context,
        "context": rope.context,
        "matrices": len(found.sums),
        "without_inputs": sum(not sums.counts.all() for sums in found.sums.values()),
        "texts": list(found.texts),
        "chunks": found.chunks,
        "chunk_size": found.chunk_size,
        "resumed": made.resumed,
    }


def _rows(facts: dict[str, Any]) -> dict[str, str]:
    """For eyes."""
    windows = f"{facts['chunks']} windows of {facts['chunk_size']} tokens"
    earlier = f", {facts['resumed']} of them by an earlier run" if facts["resumed"] else ""
    rows = {
        "wrote": f"{facts['file']}, {facts['bytes'] / 1e6:,.1f} MB",
        "model": f"{facts['family']}, {facts['matrices']} matrices",
        "context": f"{facts['original_context']} -> {facts['context']} tokens ({facts['scaling']})",
        "text": f"{windows}{earlier}, of {', '.join(facts['texts'])}",
    }
    if facts["without_inputs"]:
        rows["unseen"] = (
            f"{facts['without_inputs']} matrices got no input: experts that no token was sent to, "
            f"whose columns count alike; more text reaches more of them"
        )
    return rows
