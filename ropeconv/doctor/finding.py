"""What the doctor says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
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
    answered: the user has said what the file does not. left_behind: targets whose files never have the trap.
    """

    name: str
    severity: str
    what: str
    effects: Mapping[str, str]
    advice: str
    mend: Callable[[Values], dict[str, Any]] | None = None
    answered: bool = False
    left_behind: frozenset[str] = frozenset()

    @property
    def line(self) -> str:
        """The finding as a refusal."""
        how = "`ropeconv inspect SOURCE --fix -o OUT` writes a mended copy" if self.mend is not None else self.advice
        return f"{self.name}: {self.what}; {how}"

    def concerns(self, target: str, runtimes: Collection[str]) -> bool:
        """Whether whoever runs a file of `target` meets the trap. runtimes: their names, as in `effects`."""
        return not self.answered and target not in self.left_behind and bool(self._effects_on(runtimes))

    def note(self, runtimes: Collection[str]) -> str:
        """The finding in one line for whoever converts all the same."""
        return f"note {self.name}: {self.what} ({'; '.join(self._effects_on(runtimes))}); {self.advice}"

    def _effects_on(self, runtimes: Collection[str]) -> list[str]:
        return [f"{names}: {text}" for names, text in self.effects.items() if _names_any(names, runtimes)]


def _names_any(names: str, runtimes: Collection[str]) -> bool:
    """Whether "vLLM, transformers 5" names one of the runtimes, whatever the version."""
    own = ("every runtime", *runtimes)
    return any(f"{name} ".startswith(f"{one} ") for name in names.split(", ") for one in own)
