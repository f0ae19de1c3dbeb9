"""Terms: what a value is computed from. Equal terms are one object, so that two graphs are compared
by identity and only where they part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

SUM, TIMES = "sum", "product of values"
PRODUCT, NORM, PART = "product by a matrix", "norm", "part"
ACTIVATION, SCALED = "activation", "multiple"
ROTATION, ATTENTION, CACHE = "rotation", "attention", "cache"
CLAMPED_SILU = "silu of clamped gates, by clamped ups plus 1"
EXPERTS, TOKEN = "experts", "a token of an expert"
BY_WEIGHT, PLUS_WEIGHT = "values by a tensor's own", "values plus a tensor's own"
JOINED, REPEATED = "parts of heads joined", "one head for all"
CLAMP, TEMPERED = "clamp", "queries by a temperature"
MASKED, CONVOLUTION, STATE = "zeros for padding", "convolution", "state"
BEHIND = "values one behind the other"
RECURRENCE, RECURRENT = "linear attention", "state of linear attention"
UNORDERED = frozenset({SUM, TIMES})
WORK = frozenset({PRODUCT, PART, ACTIVATION, TIMES})  # what is done to one token of an expert


class Term:
    """One step of a computation. kind: what it does; fields: its numbers and weights by name;
    inputs: what it is done to, by role.
    """

    __slots__ = ("fields", "inputs", "kind", "serial")

    def __init__(
        self, kind: str, fields: Mapping[str, Any], inputs: Mapping[str, Term], serial: int
    ) -> None:
        self.kind = kind
        self.fields = fields
        self.inputs = inputs
        self.serial = serial

    def __str__(self) -> str:
        told = ", ".join(f"{name} {show(value)}" for name, value in self.fields.items())
        return f"{self.kind} ({told})" if told else self.kind

    def dig(self, *roles: str) -> Term | None:
        """The input of the input ... in these roles, None where there is none."""
        found: Term | None = self
        for role in roles:
            found = None if found is None else found.inputs.get(role)
        return found


class Terms:
    """The terms of one comparison. where: term -> its place in the model, where it has one."""

    def __init__(self) -> None:
        self.where: dict[Term, str] = {}
        self._known: dict[tuple[Any, ...], Term] = {}

    def make(
        self,
        kind: str,
        inputs: Mapping[str, Term] | None = None,
        *,
        where: str | None = None,
        **fields: Any,
    ) -> Term:
        """The term of this kind; fields that are None are left out. Numbers are those of
        float32, as graphs keep them.
        """
        given = dict(inputs or {})
        kept = {name: _single(value) for name, value in fields.items() if value is not None}
        roles = tuple((role, term.serial) for role, term in given.items())
        key = (kind, tuple(sorted(kept.items())), roles)
        if key not in self._known:
            self._known[key] = Term(kind, kept, given, len(self._known))
        if where is not None:
            self.where.setdefault(self._known[key], where)
        return self._known[key]

    def operator(self, name: str, *inputs: Term, **attributes: Any) -> Term:
        """What an operator of ai.onnx makes, where that has no other word here."""
        return self.make(
            f"operator {name}", {str(n): term for n, term in enumerate(inputs)}, **attributes
        )

    def constant(self, dtype: str, shape: tuple[int, ...], *values: float) -> Term:
        """A constant of the graph itself."""
        return self.make("constant", type=dtype, shape=shape, values=tuple(values))

    def add(self, *terms: Term, where: str | None = None) -> Term:
        """Their sum, sums among them taken apart: the order of additions is no difference."""
        parts = [part for term in terms for part in _parts(term)]
        return self._unordered(SUM, parts, where)

    def times(self, *terms: Term, where: str | None = None) -> Term:
        """Their product, element by element."""
        return self._unordered(TIMES, terms, where)

    def replace(self, term: Term, old: Term, new: Term) -> Term:
        """`term` with `new` in every place of `old` that one expert's work leads to."""
        if term is old:
            return new
        if term.kind not in WORK:
            return term
        inputs = {role: self.replace(inner, old, new) for role, inner in term.inputs.items()}
        if all(inputs[role] is inner for role, inner in term.inputs.items()):
            return term
        if term.kind in UNORDERED:
            return self._unordered(term.kind, inputs.values(), None)
        return self.make(term.kind, inputs, **term.fields)

    def _unordered(self, kind: str, terms: Iterable[Term], where: str | None) -> Term:
        parts = sorted(terms, key=lambda term: term.serial)
        return self.make(kind, {str(n): term for n, term in enumerate(parts)}, where=where)


def differences(found: Term, wanted: Term, where: Mapping[Term, str]) -> Iterator[str]:
    """One line for each step of `wanted` that `found` has otherwise; steps below one of another
    kind are not compared.
    """
    waiting = [(found, wanted)]
    seen: set[tuple[int, int]] = set()
    while waiting:
        mine, theirs = waiting.pop()
        if mine is theirs or (mine.serial, theirs.serial) in seen:
            continue
        seen.add((mine.serial, theirs.serial))
        place = where.get(theirs, theirs.kind)
        if mine.kind != theirs.kind:
            yield f"{place}: the graph has {mine}, the model {theirs}"
            continue
        yield from (f"{place}: {line}" for line in _fields(mine, theirs))
        pairs, lines = _pairs(mine, theirs)
        yield from (f"{place}: {line}" for line in lines)
        waiting += pairs


def _fields(mine: Term, theirs: Term) -> Iterator[str]:
    for name in dict.fromkeys((*theirs.fields, *mine.fields)):
        a, b = mine.fields.get(name), theirs.fields.get(name)
        if a != b:
            yield f"{name} is {show(a)}, the model's is {show(b)}"


def _pairs(mine: Term, theirs: Term) -> tuple[list[tuple[Term, Term]], list[str]]:
    """Inputs to compare, and what can be said of those without a partner."""
    if theirs.kind in UNORDERED:
        return _unpaired(list(mine.inputs.values()), list(theirs.inputs.values()))
    shared = [role for role in theirs.inputs if role in mine.inputs]
    lines = [f"{role} is missing" for role in theirs.inputs if role not in mine.inputs]
    lines += [
        f"{role} ({term}) belongs to no part of the model"
        for role, term in mine.inputs.items()
        if role not in theirs.inputs
    ]
    return [(mine.inputs[role], theirs.inputs[role]) for role in shared], lines


def _unpaired(mine: list[Term], theirs: list[Term]) -> tuple[list[tuple[Term, Term]], list[str]]:
    """The terms of two sums that are not in both: they face each other in order where they are as
    many, else those of one kind do.
    """
    left, wanted = _without(mine, theirs), _without(theirs, mine)
    if len(left) == len(wanted):
        return list(zip(left, wanted, strict=True)), []
    pairs, lines = [], []
    for term in wanted:
        partner = next((other for other in left if other.kind == term.kind), None)
        if partner is None:
            lines.append(f"{term} is missing")
        else:
            left.remove(partner)
            pairs.append((partner, term))
    return pairs, lines + [f"{term} belongs to no part of the model" for term in left]


def _without(terms: list[Term], others: list[Term]) -> list[Term]:
    """`terms` less one for each of `others`."""
    left = list(terms)
    for term in others:
        if term in left:
            left.remove(term)
    return left


def _parts(term: Term) -> Iterable[Term]:
    return term.inputs.values() if term.kind == SUM else (term,)


def _single(value: Any) -> Any:
    return float(np.float32(value)) if isinstance(value, float | np.floating) else value


def show(value: Any) -> str:
    """A field's value in a line."""
    if value is None:
        return "none"
    return str(np.float32(value)) if isinstance(value, float) else str(value)
