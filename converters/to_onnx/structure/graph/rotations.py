"""Which rotary embedding of the model a node rotates by, judged by the angles that it is given.

Shape letters: d rotary_dim, b batch, s tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_onnx.structure.graph.indices import Indices
from ropeconv.model import Model
from ropeconv.rope.spec import Frequencies

Ints = NDArray[np.int64]
Complex = NDArray[np.complex128]
Turn = Callable[[Ints], tuple[Complex, str]]
"""Positions (b, s) of a call -> (m e^(i angle) (b, s, d/2), the type that they are kept in)."""
# float32 rounds an angle by this share of it; half precision rounds cos and sin
ANGLE = 5e-7
SLACK = {"float32": 2e-6, "float16": 3e-3}
ANOTHER = "another table"


class Rotations:
    """The rotary embeddings of a model, by layer kind, and those that the graph's nodes have."""

    def __init__(self, model: Model, indices: Indices) -> None:
        self.indices = indices
        self.solved = {kind: found for kind, found in model.frequencies.items() if found}
        contexts = [rope.context for rope in model.ropes.values() if rope is not None]
        self.context = min(contexts, default=2)
        self._read: dict[tuple[str, ...], str] = {}

    def wanted(self, kind: str) -> str:
        """The name of a layer kind's: those of all kinds that turn alike."""
        return self._names(lambda at: (_turn(self.solved[kind], at), "float32"))

    def found(self, cos: str, sin: str, positions: str | None) -> str:
        """The name of the one that values of the graph make, ANOTHER where the model has none
        such.
        """
        values = (cos, sin) if positions is None else (cos, sin, positions)
        if values not in self._read:
            named = self._names(lambda at: self._graph(values, at))
            self._read[values] = named if self._in_order(values) else ANOTHER
        return self._read[values]

    def _names(self, turn: Turn) -> str:
        left = dict(self.solved)
        for at in self._calls:
            made, dtype = turn(at)
            left = {
                kind: numbers
                for kind, numbers in left.items()
                if _equal(made, _turn(numbers, at), _slack(numbers, at, dtype))
            }
        return " = ".join(sorted(left)) or ANOTHER

    @cached_property
    def _calls(self) -> list[Ints]:
        """Positions of calls that show every table, its ends and its switch."""
        ends = {found.switch_context for found in self.solved.values()}
        reaches = sorted({self.context, *(end for end in ends if end and end < self.context)})
        calls = [np.array([[0, 1], [1, 0]])]
        for reach in reaches:
            calls += [_sparse(reach)]
            if reach < self.context:
                calls += [_sparse(reach + 1)]
        return calls

    def _graph(self, values: Sequence[str], at: Ints) -> tuple[Complex, str]:
        cos, sin, *positions = self._run(values, at)
        if cos.shape != sin.shape or cos.ndim < 2:
            return np.zeros(0, np.complex128), cos.dtype.name
        made = np.asarray(cos.astype(np.float64) + 1j * sin.astype(np.float64), np.complex128)
        if not positions:
            return made.reshape(*at.shape, -1), cos.dtype.name
        rows = positions[0]
        fits = rows.shape == at.shape and made.ndim == 2 and rows.dtype.kind == "i"
        outside = not fits or not ((rows >= 0) & (rows < len(made))).all()
        return (made[:0] if outside else made[rows]), cos.dtype.name

    def _run(self, values: Sequence[str], at: Ints) -> list[NDArray[Any]]:
        return self.indices.run(values, ids=np.zeros_like(at), positions=at)

    def _in_order(self, values: Sequence[str]) -> bool:
        """Whether positions go to rows of a table one after the other, every one of them."""
        if len(values) < 3 or values[0] not in self.indices.folder.arrays:
            return True
        for call in self._calls[1:]:
            at = np.arange(int(call.max()) + 1)[None]
            (rows,) = self._run(values[2:], at)
            if rows.shape != at.shape or not (rows - at == rows[0, 0]).all():
                return False
        return True


def _sparse(reach: int) -> Ints:
    """(2, s) positions below `reach`, its last one among them, their neighbours in both rows."""
    powers = 2 ** np.arange(0, max(1, reach.bit_length()))
    near = np.concatenate([powers - 1, powers, powers + 1, [reach - 2, reach - 1]])
    places = np.unique(near[(near >= 0) & (near < reach)])
    return np.stack([places, places[::-1]]).astype(np.int64)


def _turn(numbers: Frequencies, at: Ints) -> Complex:
    """m e^(i angle) of every token of a call: (b, s, d/2)."""
    angles = at[..., None] * _inv_freq(numbers, at)
    return np.asarray(numbers.attention_factor * np.exp(1j * angles), np.complex128)


def _inv_freq(numbers: Frequencies, at: Ints) -> NDArray[np.float64]:
    long = numbers.long_inv_freq
    if long is None or numbers.switch_context is None or at.max() < numbers.switch_context:
        return numbers.inv_freq
    return long


def _slack(numbers: Frequencies, at: Ints, dtype: str) -> NDArray[np.float64]:
    grown = ANGLE * at[..., None] * _inv_freq(numbers, at)
    return np.asarray(numbers.attention_factor * (SLACK.get(dtype, 0.0) + grown), np.float64)


def _equal(made: Complex, wanted: Complex, slack: NDArray[np.float64]) -> bool:
    return made.shape == wanted.shape and bool((np.abs(made - wanted) <= slack).all())
