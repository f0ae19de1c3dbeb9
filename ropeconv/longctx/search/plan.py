"""How a search goes about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ropeconv.errors import ConfigError
from ropeconv.kit.options import check_options, option

MINUTES = 15.0  # of a cmaes search that is given no budget


@dataclass(frozen=True)
class Plan:
    """How to search. factor: s; guide, procedure: see guides.py and procedures.py.

    prompts, tokens: of the guide; full: as long as L', no skipping. minutes, evaluations: the
    budget, of guiding losses; None: without that limit. text, held_out: files, none: the standard
    library's. held_out_tokens: None: L' and at most 16384; 0: no held-out check.
    """

    factor: float = option(metavar="S", help="s = L'/L.")
    guide: str = option(
        "needle",
        choices=("needle", "perplexity"),
        help="needle: the loss of hidden pass keys; perplexity: of a text.",
    )
    procedure: str = option(
        "cmaes",
        choices=("cmaes", "longrope"),
        help="cmaes: a few numbers, for CPUs; longrope: the published evolution, "
        "1344 candidates, for GPUs.",
    )
    prompts: int = option(
        4, minimum=1, names="--guide-prompts", metavar="N", help="Prompts of the guide."
    )
    tokens: int = option(1024, names="--guide-tokens", metavar="N", help="Tokens of a prompt.")
    full: bool = option(
        False,
        names="--full-length",
        help="Prompts of L' tokens instead of short ones with skipped positions.",
    )
    minutes: float | None = option(
        None, metavar="M", help="Budget. Default: 15 for cmaes without --evaluations."
    )
    evaluations: int | None = option(
        None,
        minimum=1,
        metavar="N",
        help="Budget in guiding losses: candidates times prompts.",
    )
    text: Path | None = option(
        None,
        kind="file",
        metavar="FILE",
        help="Text of the perplexity guide. Default: tkinter/__init__.py, else inspect.py.",
    )
    held_out: Sequence[Path] = option(
        (),
        kind="file",
        metavar="FILE",
        help="Text of the final check. Default: _pydecimal.py.",
    )
    held_out_tokens: int | None = option(
        None,
        minimum=0,
        metavar="N",
        help="Its length; 0: no check. Default: L', at most 16384.",
    )
    seed: int = option(0, help="Of prompts and evolution.")

    def check(self) -> None:
        """ConfigError for a value out of range, naming its option."""
        check_options(self)
        if not self.factor > 1:
            raise ConfigError(f"--factor {self.factor:g}: give a number above 1")
        if self.minutes is not None and not self.minutes > 0:
            raise ConfigError(f"--minutes {self.minutes:g}: give a number above 0")

    def with_budget(self) -> Plan:
        """The plan with MINUTES where its procedure would otherwise not end."""
        unlimited = self.minutes is None and self.evaluations is None
        if unlimited and self.procedure == "cmaes":
            return replace(self, minutes=MINUTES)
        return self
