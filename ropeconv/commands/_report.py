"""What converting commands print: a progress bar on stderr, a table or JSON on stdout."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ropeconv.finding import describe_left_out

if TYPE_CHECKING:
    from ropeconv.model import Model
    from ropeconv.rope.spec import Rope
    from ropeconv.target import Emitted, Progress

WIDTH = 160  # of a report in a file or a pipe


@contextmanager
def byte_progress(label: str, *, show: bool) -> Iterator[Progress | None]:
    """A progress bar in bytes on stderr while the block runs; None when it is not to be shown."""
    if not show:
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn(label),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def fetch_sources(source: str, values: dict[str, Any], *, show: bool) -> str:
    """`fetch_source` of a command's source and of its --base. values: what was given for its
    options; --revision is taken out of it.
    """
    source = fetch_source(source, revision=values.pop("revision"), show=show)
    if values["base"] is not None:
        values["base"] = fetch_source(values["base"], show=show)
    return source


def fetch_source(source: str, *, revision: str | None = None, show: bool) -> str:
    """`source` at the revision; what a hub id means is on this machine afterwards, downloaded under
    a bar.
    """
    from ropeconv.prepare import fetch, is_here

    if is_here(source):
        return fetch(source, revision=revision)[0]
    with byte_progress("downloading", show=show) as progress:
        return fetch(source, revision=revision, progress=progress or (lambda *_: None))[0]


@contextmanager
def stage_progress(*, show: bool, lines: bool = False) -> Iterator[Callable[..., None] | None]:
    """One bar a stage on stderr while the block runs, told (stage, done, total, note); None when
    stderr is no terminal.

    lines: for work of minutes, a line at every tenth of a stage where stderr is no terminal.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not show or not console.is_terminal:
        yield _line_report() if show and lines else None
        return
    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, TextColumn("{task.fields[note]}"), console=console, transient=True
    ) as bars:
        tasks: dict[str, Any] = {}

        def update(stage: str, done: int, total: int, note: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, note="")
            bars.update(tasks[stage], completed=done, total=total, note=note)

        yield update


def _line_report() -> Callable[..., None]:
    tenths: dict[str, int] = {}

    def update(stage: str, done: int, total: int, note: str = "") -> None:
        tenth = 10 * done // total
        if tenth != tenths.get(stage):
            tenths[stage] = tenth
            click.echo(f"{stage} {done}/{total} {note}".rstrip(), err=True)

    return update


def wide_console() -> Any:
    """The terminal; WIDTH columns in a file or a pipe, so that tables do not break."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    return console if console.is_terminal else Console(soft_wrap=True, highlight=False, width=WIDTH)


def conversion_facts(model: Model, emitted: Emitted, *, dry_run: bool) -> dict[str, Any]:
    """Everything a script may want to know of a conversion."""
    rope = model.main_rope
    return {
        "written": not dry_run,
        "files": [str(path) for path in emitted.files],
        "bytes": emitted.size,
        "type": emitted.type,
        "family": model.arch.name,
        "wrapper": model.checkpoint.wrapper,
        "left_out": dict(model.checkpoint.left_out),
        "renamed": model.checkpoint.renamed,
        "unread": list(model.checkpoint.unread),
        "dequantised": model.checkpoint.dequantised,
        "base": None if model.checkpoint.base is None else str(model.checkpoint.base),
        "vouched": list(model.checkpoint.vouched),
        "scaling": rope.kind,
        "original_context": rope.original_context,
        "context": rope.context,
        "factor": rope.context / rope.original_context,
        **scaling_numbers(model),
        "carried_as": emitted.carried.how,
        "because": emitted.carried.why,
        **emitted.details,
    }


def scaling_numbers(model: Model) -> dict[str, Any]:
    """What the scaling comes to, existing and new together: smallest and largest divisor, and the
    magnitude.
    """
    found = model.main_frequencies
    tables = [found.rho] if found.long_rho is None else [found.rho, found.long_rho]
    rho = [float(value) for table in tables for value in table if math.isfinite(value)]
    return {"divisors": [min(rho), max(rho)], "attention_factor": found.attention_factor}


def _inside(model: Model) -> str:
    wrapper = model.checkpoint.wrapper
    return "" if wrapper is None else f" (the text model of {wrapper})"


def _describe_kind(rope: Rope) -> str:
    """The kind; and its factor where that is not L'/L, as it may be for NTK-aware scaling and for a
    config's own.
    """
    factor = getattr(rope.parameters, "factor", None)
    reach = rope.context / rope.original_context
    if factor is None or math.isclose(factor, reach, rel_tol=1e-9):
        return rope.kind
    return (
        f"{rope.kind}, factor {factor:g}, which is not "
        f"{rope.context}/{rope.original_context} = {reach:g}"
    )


def _describe_numbers(model: Model) -> str:
    numbers = scaling_numbers(model)
    low, high = numbers["divisors"]
    return f"{low:.4g} to {high:.4g}, cos and sin times {numbers['attention_factor']:.6g}"


def show_conversion(
    model: Model, emitted: Emitted, *, dry_run: bool, artefact: Path | None = None
) -> None:
    """A table for eyes on stdout, and the next step on stderr. artefact: what `verify` takes, when
    it is not the first file.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in _conversion_rows(model, emitted, dry_run=dry_run).items():
        table.add_row(f"[bold]{key}[/bold]", value)
    Console(soft_wrap=True).print(table)
    if not dry_run:
        Console(stderr=True, soft_wrap=True).print(
            f"[dim]prove it: ropeconv verify "
            f"{shlex.quote(str(artefact or emitted.files[0]))}[/dim]",
            highlight=False,
        )


def _conversion_rows(model: Model, emitted: Emitted, *, dry_run: bool) -> dict[str, str]:
    rope = model.main_rope
    architecture = emitted.details.get("architecture", emitted.type)
    files = [str(path) for path in emitted.files]
    if len(files) > 2:
        files = [files[0], f"... {len(files)} files"]
    types = ", ".join(
        f"{kind} {size / 1e6:,.1f} MB"
        for kind, size in emitted.details.get("bytes_by_type", {}).items()
    )
    rows = {
        "would write" if dry_run else "wrote": "\n".join(files),
        "size": f"{emitted.size / 1e6:,.1f} MB, {emitted.type} ({types})",
        "model": f"{model.arch.name}{_inside(model)}, {len(model.stack.layers)} layers, "
        f"as {architecture}",
        "context": f"{rope.original_context} -> {rope.context} tokens ({_describe_kind(rope)})",
        "divisors": _describe_numbers(model),
        "carried as": f"{emitted.carried.how}: {emitted.carried.why}",
    }
    for what in ("kept", "requantised", "weighed", "bits", "shared", "browser"):
        if emitted.details.get(what):
            rows[what] = emitted.details[what]
    if model.checkpoint.left_out:
        rows["left out"] = describe_left_out(model.checkpoint.left_out)
    if model.checkpoint.renamed:
        rows["names"] = f"read {model.checkpoint.renamed}"
    if model.checkpoint.unread:
        rows["not read"] = ", ".join(model.checkpoint.unread)
    if model.checkpoint.dequantised:
        kept = ", but for what was kept" if emitted.details.get("kept") else ""
        rows["dequantised"] = f"from {model.checkpoint.dequantised}{kept}"
    if model.checkpoint.vouched:
        keys = ", ".join(model.checkpoint.vouched)
        rows["vouched"] = f"{keys}, for having no bearing on logits"
    if model.checkpoint.base is not None:
        rows["base"] = f"{model.checkpoint.base}, with the adapter merged in"
    limits = emitted.details.get("tokenizer_limits", [])
    if limits:
        rows["tokens"] = "\n".join(limits)
    return rows
