"""Rung: token ids, texts and kinds, special ids and chat templates of the artefact against the
source's tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ropeconv.artefact import Artefact
from ropeconv.proof.tokens.added import texts_around
from ropeconv.proof.tokens.readings import judge_texts, read_texts
from ropeconv.proof.tokens.tokenizing import Tokenizing

ALWAYS = ("bos", "eos", "padding")  # special ids that every format has a place for
ENDS = ("eos", "eot", "eom")  # compared as the tokens at which generation stops


@dataclass(frozen=True)
class TokenResult:
    """findings: one line for whatever is wrong; notes: readings of the source that differ where
    nothing is wrong; texts: how many were read.
    """

    findings: list[str]
    notes: list[str]
    texts: int


def compare_tokens(
    artefact: Artefact, reference: Tokenizing, samples: Mapping[str, str]
) -> TokenResult:
    """The artefact's tokens against the source's: `samples` and texts made for every added token,
    then whatever else a tokenizer says.
    """
    vocabulary = artefact.vocabulary()
    added = {i: token for i, token in reference.added_tokens().items() if i < len(vocabulary)}
    readings = reference.readings()
    outcomes = read_texts(artefact.tokenize, readings, samples, added)
    wrong, notes = judge_texts(outcomes, list(readings))
    every = artefact.token_kinds is not None
    findings: list[str | None] = [*wrong]
    findings += _vocabulary_findings(vocabulary, reference.vocabulary())
    findings += _special_findings(artefact.special_ids, reference.special_ids(), every=every)
    if artefact.token_kinds is not None:
        findings += _kind_findings(artefact.token_kinds(), reference)
    if artefact.ends is not None:
        findings += _end_findings(artefact.ends(), reference, every=every)
    if artefact.chat_templates is not None:
        findings += _template_findings(artefact.chat_templates, reference.chat_templates())
    if artefact.flags_around is not None:
        findings += _flag_findings(artefact.flags_around, reference.flags_around())
    if artefact.merges is not None:
        findings += _merge_findings(artefact.merges(), reference.merges())
    texts = len(samples) + sum(len(texts_around(token)) for token in added.values())
    return TokenResult([finding for finding in findings if finding is not None], notes, texts)


def _vocabulary_findings(found: Sequence[str], expected: Mapping[int, str]) -> list[str | None]:
    """Token texts at every id that the reference knows."""
    beyond = [i for i in expected if i >= len(found)]
    if beyond:
        return [
            f"the vocabulary has {len(found)} tokens, the reference has one at id {max(beyond)}"
        ]
    wrong = [i for i in sorted(expected) if found[i] != expected[i]]
    if not wrong:
        return []
    i = wrong[0]
    return [
        f"token {i} reads {found[i]!r}, the reference says {expected[i]!r} ({len(wrong)} of "
        f"{len(expected)} differ)"
    ]


def _special_findings(
    found: Mapping[str, int], expected: Mapping[str, set[int]], *, every: bool
) -> list[str | None]:
    """every: the format has a place for all ids, not for bos, eos and padding alone."""
    findings: list[str | None] = []
    for name, right in expected.items():
        if name not in found:
            if right and (every or name in ALWAYS) and name not in ENDS[1:]:
                findings.append(
                    f"the artefact has no {name} token, the reference has {_list(right)}"
                )
        elif found[name] not in right:
            findings.append(f"the {name} token is {found[name]}, the reference has {_list(right)}")
    return findings


def _list(ids: set[int]) -> str:
    return " or ".join(map(str, sorted(ids))) or "none"


def _kind_findings(found: Sequence[str], reference: Tokenizing) -> list[str | None]:
    """Kinds of the tokens that the reference knows: what is taken out of a text first, and what is
    shown to a reader.
    """
    expected = {index: right for index, right in reference.kinds().items() if index < len(found)}
    wrong = [index for index, right in sorted(expected.items()) if found[index] not in right]
    if not wrong:
        return []
    index = wrong[0]
    right = " or ".join(sorted(expected[index]))
    text = reference.vocabulary()[index]
    return [
        f"token {index} ({text!r}) is of kind {found[index]}, the reference has {right} "
        f"({len(wrong)} differ)"
    ]


def _end_findings(
    found: Mapping[int, bool], reference: Tokenizing, *, every: bool
) -> list[str | None]:
    """every: the format's runtime stops at the tokenizer's end too, and not at those alone that
    generation is given.
    """
    allowed = reference.ends()
    missing = sorted((allowed if every else reference.generation_ends()) - set(found))
    added = sorted(index for index, stated in found.items() if stated and index not in allowed)
    findings: list[str | None] = [
        f"generation does not stop at token {index}, the reference's does" for index in missing
    ]
    return [
        *findings,
        *(f"generation stops at token {index}, the reference's does not" for index in added),
    ]


def _flag_findings(
    found: Mapping[str, Any], expected: Mapping[str, Any] | None
) -> list[str | None]:
    if expected is None:
        return []
    return [
        f"{name} is {found.get(name)}, the reference has {expected.get(name)}"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]


def _merge_findings(found: Sequence[str], expected: Sequence[str] | None) -> list[str | None]:
    """Every merge in its place: no text need meet a rare pair."""
    if not expected or list(found) == list(expected):
        return []
    if len(found) != len(expected):
        return [f"the artefact has {len(found)} merges, the reference {len(expected)}"]
    wrong = [rank for rank, pair in enumerate(expected) if found[rank] != pair]
    rank = wrong[0]
    return [
        f"merge {rank} is {found[rank]!r}, the reference has {expected[rank]!r} "
        f"({len(wrong)} of {len(expected)} differ)"
    ]


def _template_findings(found: Mapping[str, str], expected: Mapping[str, str]) -> list[str | None]:
    findings: list[str | None] = []
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            findings.append(f"the chat template {name!r} of the reference is missing")
        elif name not in expected:
            findings.append(
                f"the artefact has a chat template {name!r}, the reference has none of that name"
            )
        elif _lines(found[name]) != _lines(expected[name]):
            findings.append(f"the chat template {name!r} is not the reference's")
    return findings


def _lines(template: str) -> list[str]:
    return template.replace("\r\n", "\n").split("\n")  # Jinja reads both line ends alike
