"""The tokenizer of a source in one file: its own runtime's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ropeconv.artefact import Artefact
from ropeconv.proof.tokens.added import AddedToken
from ropeconv.proof.tokens.tokenizing import FURTHER_IDS

ADDED_KINDS = frozenset({"unknown", "control", "user"})


@dataclass(frozen=True)
class SourceFile:
    """A source in one file: its own runtime's tokenizer is the reference. ids: special ids to
    compare; None = all.
    """

    artefact: Artefact
    ids: frozenset[str] | None = None

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self.artefact.tokenize(text)

    def readings(self) -> Mapping[str, Callable[[str], list[int]]]:
        """Its own runtime's alone."""
        return {"the source's runtime": self.artefact.tokenize}

    def added_tokens(self) -> dict[int, AddedToken]:
        """The tokens that are of no plain kind; the format keeps no flags."""
        texts = self.artefact.vocabulary()
        return {
            index: AddedToken(index, texts[index])
            for index, kinds in self.kinds().items()
            if kinds & ADDED_KINDS
        }

    def vocabulary(self) -> dict[int, str]:
        """Id -> token text."""
        return dict(enumerate(self.artefact.vocabulary()))

    def special_ids(self) -> dict[str, set[int]]:
        """Name -> the source's id."""
        found = {
            name: {token}
            for name, token in self.artefact.special_ids.items()
            if self.ids is None or name in self.ids
        }
        return {name: set() for name in FURTHER_IDS} | found if self.ids is None else found

    def kinds(self) -> dict[int, frozenset[str]]:
        """Id -> the source's kind."""
        kinds = self.artefact.token_kinds() if self.artefact.token_kinds is not None else []
        return {index: frozenset({kind}) for index, kind in enumerate(kinds)}

    def ends(self) -> set[int]:
        """Where the source's own runtime stops."""
        return set() if self.artefact.ends is None else set(self.artefact.ends())

    def generation_ends(self) -> set[int]:
        """What the file says, without its runtime's habits."""
        ids = self.artefact.special_ids
        return {ids[name] for name in ("eos", "eot", "eom") if name in ids}

    def chat_templates(self) -> dict[str, str]:
        """Name -> Jinja source."""
        return dict(self.artefact.chat_templates or {})

    def flags_around(self) -> None:
        """What its runtime puts around a text shows in every text."""

    def merges(self) -> list[str] | None:
        """The file's own."""
        return None if self.artefact.merges is None else list(self.artefact.merges())
