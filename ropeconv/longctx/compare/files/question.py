"""What a comparison of finished files asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ropeconv.kit.options import option


@dataclass(frozen=True)
class FilesQuestion:
    """What the files are compared on.

    reference: their source, where they do not say it; base: the model under a source that is an
    adapter; original_context: L, where its config does not say. text: files, none: `_pydecimal.py`.
    tokens: None: past L, at most 16384. max_bytes: of the file to ship.
    """

    reference: str | None = option(
        None, metavar="SRC", help="With --types: the source of the files. Default: as they say."
    )
    max_bytes: int | None = option(
        None,
        kind="size",
        metavar="SIZE",
        help="With --types: name the file of the lowest KL up to this size (300M, 2G).",
    )
    base: str | Path | None = None
    original_context: int | None = None
    text: Sequence[Path] = ()
    tokens: int | None = None
