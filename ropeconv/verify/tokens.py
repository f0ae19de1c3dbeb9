"""Rung: token ids, token texts and special ids of the artefact's runtime against transformers' tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ropeconv.target import Artefact


class Tokenizing(Protocol):
    """What tokens are compared with."""

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text."""

    def vocabulary(self) -> dict[int, str]:
        """Id -> token text."""

    def special_ids(self) -> dict[str, set[int]]:
        """bos, eos, padding -> ids that are right."""


@dataclass(frozen=True)
class SourceFile:
    """A source in one file: its own runtime's tokenizer is the reference. ids: special ids to compare; None = all."""

    artefact: Artefact
    ids: frozenset[str] | None = None

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self.artefact.tokenize(text)

    def vocabulary(self) -> dict[int, str]:
        """Id -> token text."""
        return dict(enumerate(self.artefact.vocabulary()))

    def special_ids(self) -> dict[str, set[int]]:
        """bos, eos, padding -> the source's id."""
        return {name: {token} for name, token in self.artefact.special_ids.items() if self.ids is None or name in self.ids}


def token_findings(artefact: Artefact, reference: Tokenizing, samples: Mapping[str, str]) -> list[str]:
    """One line for each sample whose ids differ, then for token texts and special ids; empty = equal."""
    findings = [_compare_ids(name, text, artefact.tokenize, reference.tokenize) for name, text in samples.items()]
    findings += _vocabulary_findings(artefact.vocabulary(), reference.vocabulary())
    findings += _special_findings(artefact.special_ids, reference.special_ids())
    return [finding for finding in findings if finding is not None]


def _compare_ids(name: str, text: str, mine: Callable[[str], list[int]], theirs: Callable[[str], list[int]]) -> str | None:
    found, expected = mine(text), theirs(text)
    if found == expected:
        return None
    at = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), min(len(found), len(expected)))
    return (
        f"text {name!r}: token {at} of {len(found)} is {_show(found, at)}, the reference has {_show(expected, at)} "
        f"of {len(expected)}"
    )


def _show(ids: Sequence[int], at: int) -> str:
    return str(ids[at]) if at < len(ids) else "nothing"


def _vocabulary_findings(found: Sequence[str], expected: Mapping[int, str]) -> list[str | None]:
    """Token texts at every id that the reference knows."""
    beyond = [i for i in expected if i >= len(found)]
    if beyond:
        return [f"the vocabulary has {len(found)} tokens, the reference has one at id {max(beyond)}"]
    wrong = [i for i in sorted(expected) if found[i] != expected[i]]
    if not wrong:
        return []
    i = wrong[0]
    return [f"token {i} reads {found[i]!r}, the reference says {expected[i]!r} ({len(wrong)} of {len(expected)} differ)"]


def _special_findings(found: Mapping[str, int], expected: Mapping[str, set[int]]) -> list[str | None]:
    findings: list[str | None] = []
    for name, right in expected.items():
        if name not in found:
            findings.append(f"the artefact has no {name} token, the reference has {_list(right)}")
        elif found[name] not in right:
            findings.append(f"the {name} token is {found[name]}, the reference has {_list(right)}")
    return findings


def _list(ids: set[int]) -> str:
    return " or ".join(map(str, sorted(ids)))
