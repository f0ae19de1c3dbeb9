"""Texts made for the added tokens of a tokenizer, each token between letters, spaces and lines."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

GROUP = 16  # tokens of one text; a text that disagrees is taken apart
FLAGS = ("lstrip", "rstrip", "single_word", "normalized")


@dataclass(frozen=True)
class AddedToken:
    """A token that is cut out of a text before anything else looks at it.

    flags: those of `FLAGS` that are set; empty too where a format has no word for them.
    """

    id: int
    content: str
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For a finding."""
        return f"added token {self.content!r} ({', '.join((f'id {self.id}', *self.flags))})"


def texts_around(token: AddedToken) -> list[str]:
    """What each flag changes: letters, spaces, tabs and lines on each side, the token alone, twice,
    and in the other spellings that normalising makes one.
    """
    t = token.content
    texts = [
        f"a{t}b",
        f"a {t} b",
        f"a  {t}  b",
        f"a\n{t}\nb",
        f"a \n {t} \n b",
        f"a\t{t}\tb",
        f"1{t}2",
        f".{t}.",
        t,
        f" {t} ",
        f"{t}{t} {t}",
    ]
    return texts + [f"a {spelling} b" for spelling in _spellings(token)]


def _spellings(token: AddedToken) -> list[str]:
    t = token.content
    found = {t.replace(" ", "▁"), t.replace("▁", " ")}
    if "normalized" in token.flags:
        found |= {unicodedata.normalize(form, t) for form in ("NFC", "NFD", "NFKC")}
        found |= {t.lower(), t.upper()}
    return sorted(found - {t})


def groups(tokens: Mapping[int, AddedToken]) -> Iterator[Sequence[AddedToken]]:
    """Every token that has a text, in order of id, `GROUP` at a time."""
    rest = iter([tokens[index] for index in sorted(tokens) if tokens[index].content])
    while group := list(islice(rest, GROUP)):
        yield group
