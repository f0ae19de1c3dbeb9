"""What an artefact's tokens are compared with, whatever the source is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ropeconv.proof.tokens.added import AddedToken

# Special ids beside bos, eos and padding, which every format has: an artefact's name -> the stem of
# transformers'
FURTHER_IDS = {"unknown": "unk", "seperator": "sep", "mask": "mask"}


class Tokenizing(Protocol):
    """What tokens are compared with."""

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text."""

    def readings(self) -> Mapping[str, Callable[[str], list[int]]]:
        """Who reads the source's tokenizer -> its ids of a text; the one to believe first."""

    def added_tokens(self) -> dict[int, AddedToken]:
        """Id -> token that is cut out of a text first."""

    def vocabulary(self) -> dict[int, str]:
        """Id -> token text."""

    def special_ids(self) -> dict[str, set[int]]:
        """Name -> ids that are right; an empty set where the source has no such token."""

    def kinds(self) -> dict[int, frozenset[str]]:
        """Id -> kinds that are right (see Artefact.token_kinds), for the ids that the source
        knows.
        """

    def ends(self) -> set[int]:
        """Tokens at which the source stops generating, by any of its files."""

    def generation_ends(self) -> set[int]:
        """Those of them at which generation stops when it is given nothing."""

    def chat_templates(self) -> dict[str, str]:
        """Name -> Jinja source; "default" for the main one."""

    def flags_around(self) -> Mapping[str, Any] | None:
        """Of FLAGS_AROUND those that are stated; None where they are kept elsewhere."""

    def merges(self) -> list[str] | None:
        """The pairs of byte-pair encoding in order, "a b"; None where it is not said so."""
