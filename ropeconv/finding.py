"""What the doctor says of a source, in its own words and in those of a target that knows its
files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]

ERROR, WARNING, NOTE = "error", "warning", "note"
"""The file's meaning is doubtful: nothing is converted · some runtime computes something else ·
worth knowing.
"""


@dataclass(frozen=True)
class Finding:
    """One trap that a file shows.

    name: T1 ... as in the documentation's list. effects: runtime -> what it does with the file as
    it is. advice: what to do. mend: keys (a config's, or GGUF metadata) -> keys without the trap;
    None where the file does not say enough. answered: the user has said what the file does not.
    """

    name: str
    severity: str
    what: str
    effects: Mapping[str, str]
    advice: str
    mend: Callable[[Values], dict[str, Any]] | None = None
    answered: bool = False

    @property
    def line(self) -> str:
        """The finding as a refusal."""
        how = (
            "`ropeconv inspect SOURCE --fix -o OUT` writes a mended copy"
            if self.mend is not None
            else self.advice
        )
        return f"{self.name}: {self.what}; {how}"

    def concerns(self, runtimes: Collection[str], *, cured: Collection[str]) -> bool:
        """Whether whoever runs a target's file meets the trap.

        runtimes: their names, as in `effects`. cured: names of traps that its files never have.
        """
        return not self.answered and self.name not in cured and bool(self._effects_on(runtimes))

    def note(self, runtimes: Collection[str]) -> str:
        """The finding in one line for whoever converts all the same."""
        return (
            f"note {self.name}: {self.what} "
            f"({'; '.join(self._effects_on(runtimes))}); {self.advice}"
        )

    def _effects_on(self, runtimes: Collection[str]) -> list[str]:
        return [
            f"{names}: {text}"
            for names, text in self.effects.items()
            if _names_any(names, runtimes)
        ]


def _names_any(names: str, runtimes: Collection[str]) -> bool:
    """Whether "vLLM, transformers 5" names one of the runtimes, whatever the version."""
    own = ("every runtime", *runtimes)
    return any(f"{name} ".startswith(f"{one} ") for name in names.split(", ") for one in own)


INTENT = "ropeconv.intent"
"""A mend's word to whoever writes it: rope_parameters of the full-attention layers, as a key."""


def changes(before: Values, after: Values) -> dict[str, Any]:
    """What differs, as `FileReader.open_checkpoint` takes it: key -> new value, None where gone."""
    gone = {key: None for key in before if key not in after}
    new = {k: v for k, v in after.items() if k not in before or before[k] != v}
    return gone | new


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """What of a source is no part of its text model: group -> tensors, as reports say it."""
    return ", ".join(f"{part} ({count} tensors)" for part, count in sorted(left_out.items()))
