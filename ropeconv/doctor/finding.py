"""What the doctor says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]

ERROR, WARNING, NOTE = "error", "warning", "note"
"""The file's meaning is doubtful: nothing is converted · some runtime computes something else · worth knowing."""


@dataclass(frozen=True)
class Finding:
    """One trap that a file shows.

    name: T1 ... as in the documentation's list. effects: runtime -> what it does with the file as it is. advice: what to do.
    mend: keys (a config's, or GGUF metadata) -> keys without the trap; None where the file does not say enough.
    """

    name: str
    severity: str
    what: str
    effects: Mapping[str, str]
    advice: str
    mend: Callable[[Values], dict[str, Any]] | None = None

    @property
    def line(self) -> str:
        """The finding as a refusal."""
        how = "`ropeconv inspect SOURCE --fix -o OUT` writes a mended copy" if self.mend is not None else self.advice
        return f"{self.name}: {self.what}; {how}"
