"""What converting commands print: a progress bar on stderr, a table or JSON on stdout."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ropeconv.model import Model
from ropeconv.target import Emitted, Progress


@contextmanager
def byte_progress(label: str, *, show: bool) -> Iterator[Progress | None]:
    """A progress bar in bytes on stderr while the block runs; None when it is not to be shown."""
    if not show:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(label), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def conversion_facts(model: Model, emitted: Emitted, *, dry_run: bool) -> dict[str, Any]:
    """Everything a script may want to know of a conversion."""
    rope = model.main_rope
    return {
        "written": not dry_run,
        "files": [str(path) for path in emitted.files],
        "bytes": emitted.size,
        "type": emitted.type,
        "family": model.arch.name,
        "scaling": rope.kind,
        "original_context": rope.original_context,
        "context": rope.context,
        "carried_as": emitted.carried.how,
        "because": emitted.carried.why,
        **emitted.details,
    }


def show_conversion(model: Model, emitted: Emitted, *, dry_run: bool) -> None:
    """A table for eyes on stdout, and the next step on stderr."""
    from rich.console import Console
    from rich.table import Table

    facts = conversion_facts(model, emitted, dry_run=dry_run)
    rope = model.main_rope
    table = Table(show_header=False, box=None, pad_edge=False)
    files = facts["files"] if len(facts["files"]) <= 2 else [facts["files"][0], f"... {len(facts['files'])} files"]
    types = ", ".join(f"{kind} {size / 1e6:,.1f} MB" for kind, size in emitted.details.get("bytes_by_type", {}).items())
    rows = {
        "would write" if dry_run else "wrote": "\n".join(files),
        "size": f"{emitted.size / 1e6:,.1f} MB, {emitted.type} ({types})",
        "model": f"{model.arch.name}, {model.dims.num_layers} layers, as {emitted.details.get('architecture', emitted.type)}",
        "context": f"{rope.original_context} -> {rope.context} tokens ({rope.kind})",
        "carried as": f"{emitted.carried.how}: {emitted.carried.why}",
    }
    limits = emitted.details.get("tokenizer_limits", [])
    if limits:
        rows["tokens"] = "\n".join(limits)
    for key, value in rows.items():
        table.add_row(f"[bold]{key}[/bold]", value)
    Console(soft_wrap=True).print(table)
    if not dry_run:
        Console(stderr=True, soft_wrap=True).print(
            f"[dim]prove it: ropeconv verify {shlex.quote(facts['files'][0])}[/dim]", highlight=False
        )
