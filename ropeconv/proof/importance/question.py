"""What a user chooses for an importance matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ropeconv.kit.options import option
from ropeconv.proof.reference.arithmetic import COSTS, DEVICES


@dataclass(frozen=True)
class Question:
    """text: none, and merged: the files are added up, and nothing is run."""

    text: Sequence[Path] = option(
        (),
        kind="file",
        metavar="FILE",
        help="Text to run on (UTF-8). Repeatable. Default: Python's own documentation.",
    )
    tokens: int | None = option(
        None,
        minimum=2,
        metavar="N",
        help="Tokens in all. Default: 32768, or as many as the text has.",
    )
    chunk_size: int | None = option(
        None,
        minimum=2,
        metavar="N",
        help="Tokens of a window. Default: past the trained context, at most 16384.",
    )
    merged: Sequence[Path] = option(
        (),
        names="--in-file",
        kind="file",
        metavar="FILE",
        help="A matrix to add to, as llama-imatrix takes it. Repeatable; without --text nothing is "
        "run.",
    )
    process_output: bool = option(False, help="The output's matrix too.")
    device: str = option("cpu", choices=DEVICES, help="Where the model runs.")
    dtype: str = option("float32", choices=tuple(COSTS), help="What it computes in.")
    force: bool = option(False, help="Replace an existing output.")

    @property
    def runs(self) -> bool:
        """Whether a text is run."""
        return bool(self.text) or not self.merged
