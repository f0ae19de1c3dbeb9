"""What a token sees, judged by the masks and lengths that the graph makes of its inputs.

Shape letters: b batch, s new tokens, p past tokens, t = p + s.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_onnx.structure.graph.indices import Indices
from ropeconv.model import Model

Bools = NDArray[np.bool_]
PADDING = -9999.0  # added to a score, at least so much takes its token away
ANOTHER = "another mask"
CAUSAL = "all before it but padding"


class Masks:
    """The masks of one graph."""

    def __init__(self, model: Model, indices: Indices) -> None:
        self.indices = indices
        windows = [layer.mixer.window for layer in model.stack.layers]
        # so many tokens that the longest window ends among them
        self.reach = max(model.main_rope.context, *(window or 0 for window in windows)) + 2
        self._read: dict[tuple[str, ...], tuple[str, int | None]] = {}

    def seen(self, mask: str, sink: str | None = None) -> tuple[str, int | None]:
        """(CAUSAL or ANOTHER, the window) of a mask (b, 1, s, t), true where a token is seen.

        sink: (t + 1,) which column stands for a sink, of costs (b, 1, s, t + 1), 0 where seen.
        """
        values = (mask,) if sink is None else (mask, sink)
        if values not in self._read:
            self._read[values] = self._seen(values)
        return self._read[values]

    def kept(self, lengths: str, total: str, bias: str) -> str:
        """CAUSAL where (b,) last places, (1,) length and bias (b, 1, s, t) leave out padding
        and nothing else, else ANOTHER.
        """
        values = (lengths, total, bias)
        if values not in self._read:
            self._read[values] = (CAUSAL if self._keeps(values) else ANOTHER), None
        return self._read[values][0]

    def real(self, name: str) -> bool:
        """Whether a value (b, s, 1), or (b*s, 1), is 1 for new tokens and 0 for padding."""
        key = (name,)
        if key not in self._read:
            self._read[key] = (CAUSAL if self._is_real(name) else ANOTHER), None
        return self._read[key][0] == CAUSAL

    def _is_real(self, name: str) -> bool:
        for attention, new in _cases(None):
            (found,) = self._run((name,), attention, new=new)
            wanted = attention[:, -new:]
            shapes = ((*wanted.shape, 1), (wanted.size, 1))
            if found.shape not in shapes or (found.ravel() != wanted.ravel()).any():
                return False
        return True

    def _seen(self, values: tuple[str, ...]) -> tuple[str, int | None]:
        last = self._visible(values, np.ones((1, self.reach), np.int64), new=1).reshape(-1)
        window = None if last.all() else int(last.sum())
        for attention, new in _cases(window):
            found = self._visible(values, attention, new=new)
            if not _alike(found, _seen(attention, new, window), attention[:, -new:] > 0):
                return ANOTHER, window
        return CAUSAL, window

    def _visible(self, values: tuple[str, ...], attention: NDArray[Any], *, new: int) -> Bools:
        """(b, 1, s, t) what is seen; nothing at all where a sink is not in its place."""
        mask, *sink = self._run(values, attention, new=new)
        if not sink:
            return mask
        total = attention.shape[1]
        if sink[0].tolist() != [False] * total + [True]:
            return np.zeros(1, np.bool_)
        return np.asarray(mask[..., :total] == 0)

    def _keeps(self, values: tuple[str, str, str]) -> bool:
        for attention, new in _cases(None):
            lengths, total, bias = self._run(values, attention, new=new)
            rows, columns = attention.shape
            if bias.shape != (rows, 1, new, columns) or total.tolist() != [columns]:
                return False
            if lengths.tolist() != [columns - 1] * rows:
                return False
            real = np.broadcast_to(attention[:, None, None] > 0, bias.shape)
            if not np.where(real, bias == 0, bias <= PADDING).all():
                return False
        return True

    def _run(self, values: Any, attention: NDArray[Any], *, new: int) -> list[NDArray[Any]]:
        ids = np.zeros((len(attention), new), np.int64)
        return self.indices.run(values, ids=ids, mask=attention)


def _cases(window: int | None) -> list[tuple[NDArray[np.int64], int]]:
    """(mask (b, t), new tokens): first calls and later ones, padded on either side, long ones."""
    first = np.ones((3, 9), np.int64)
    first[0, :4] = first[1, 3:5] = first[2, 7:] = 0
    cases = [(first, 9), (first[:, ::-1].copy(), 4)]
    if window is not None:
        cases += [(np.ones((1, window + new), np.int64), new) for new in (1, 3)]
    return cases


def _seen(attention: NDArray[np.int64], new: int, window: int | None) -> Bools:
    """(b, s, t) whether a new token sees a token."""
    total = attention.shape[1]
    columns = np.arange(total)
    distance = np.arange(total - new, total)[:, None] - columns
    near = distance >= 0
    if window is not None:
        near &= distance < window
    return np.asarray(near[None] & (attention[:, None] > 0))


def _alike(found: NDArray[Any], wanted: Bools, real: Bools) -> bool:
    """Whether every token that is no padding sees what it should. found: (b, 1, s, t)."""
    if found.dtype != np.bool_ or found.shape != (len(wanted), 1, *wanted.shape[1:]):
        return False
    return bool((found[:, 0] == wanted)[real].all())
