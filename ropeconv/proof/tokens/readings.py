"""A text read by each party of a comparison: the artefact's runtime, and every reading of the
source's tokenizer.

Sources can be read in more than one way: transformers puts a pipeline of its own class in place of
tokenizer.json's for some models. An artefact is right when it follows one of the readings in every
text; the readings that differ from it are named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ropeconv.proof.tokens.added import AddedToken, groups, texts_around

Read = Callable[[str], list[int]]
SHOWN = 5  # added tokens told of one by one


@dataclass(frozen=True)
class Outcome:
    """One text: the artefact's ids, and those of every reading of the source."""

    name: str
    text: str
    found: Sequence[int]
    expected: Mapping[str, Sequence[int]]
    token: AddedToken | None = None  # the added token that the text was made for

    @property
    def agreed(self) -> bool:
        """All parties have the same ids."""
        return all(self.found == ids for ids in self.expected.values())


def read_texts(
    mine: Read,
    theirs: Mapping[str, Read],
    samples: Mapping[str, str],
    added: Mapping[int, AddedToken],
) -> list[Outcome]:
    """An outcome for each sample, and one for each text of an added token that parties read
    differently.
    """

    def read(name: str, text: str, token: AddedToken | None = None) -> Outcome:
        expected = {reading: tokenize(text) for reading, tokenize in theirs.items()}
        return Outcome(name, text, mine(text), expected, token)

    outcomes = [read(f"text {name!r}", text) for name, text in samples.items()]
    for group in groups(added):
        joined = "".join(text for token in group for text in texts_around(token))
        together = read(f"text of the {group[0].name} and {len(group) - 1} more", joined)
        if together.agreed:
            continue
        apart = [read(token.name, text, token) for token in group for text in texts_around(token)]
        differing = [outcome for outcome in apart if not outcome.agreed]
        outcomes += differing or [together]
    return outcomes


def judge_texts(
    outcomes: Sequence[Outcome], readings: Sequence[str]
) -> tuple[list[str], list[str]]:
    """(findings, notes): one line for each text, or added token, that differs from the nearest
    reading; and one for each other reading that differs where nothing is wrong.
    """
    wrong = {name: [o for o in outcomes if o.found != o.expected[name]] for name in readings}
    nearest = min(readings, key=lambda name: len(wrong[name]))  # the first of equals
    if not wrong[nearest]:
        return [], [
            f"{name} reads {len(differing)} text{'s' if len(differing) > 1 else ''} otherwise than "
            f"{nearest} and the artefact: {_tell(differing[0], name)}"
            for name, differing in wrong.items()
            if differing
        ]
    lines: dict[object, str] = {}
    for outcome in wrong[nearest]:
        lines.setdefault(outcome.token or outcome.name, _tell(outcome, nearest))
    tokens = [key for key in lines if isinstance(key, AddedToken)]
    findings = [line for key, line in lines.items() if key not in tokens[SHOWN:]]
    if len(tokens) > SHOWN:
        findings.append(f"{len(tokens) - SHOWN} more added tokens are read differently")
    return findings, []


def _tell(outcome: Outcome, reading: str) -> str:
    """Where the artefact and one reading part, and what the other readings have where they part
    too.
    """
    found, expected = outcome.found, outcome.expected[reading]
    at = _first_difference(found, expected)
    shown = f"{outcome.name} in {outcome.text!r}" if outcome.token else outcome.name
    line = (
        f"{shown}: token {at} of {len(found)} is {_show(found, at)}, the reference has "
        f"{_show(expected, at)} of {len(expected)}"
    )
    others = [
        f"{name} has {_show(ids, at)} of {len(ids)}"
        for name, ids in outcome.expected.items()
        if ids != expected
    ]
    return "; ".join([f"{line} ({reading})", *others]) if others else line


def _first_difference(found: Sequence[int], expected: Sequence[int]) -> int:
    pairs = enumerate(zip(found, expected, strict=False))
    shorter = min(len(found), len(expected))
    return next((i for i, (mine, its) in pairs if mine != its), shorter)


def _show(ids: Sequence[int], at: int) -> str:
    return str(ids[at]) if at < len(ids) else "nothing"
