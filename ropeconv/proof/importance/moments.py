"""The second moments of the inputs of a model's matrices, a layer's at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.config.patch import huggingface_patch
from ropeconv.config.rope_parameters import replace_rope_parameters
from ropeconv.importance.moments import Calibration, Groups, Rounded, groups_of
from ropeconv.importance.sums import Sums
from ropeconv.model import Model
from ropeconv.proof.importance.gather import Gatherer
from ropeconv.proof.importance.losses import find_losses
from ropeconv.proof.importance.products import Squares, watching
from ropeconv.proof.importance.question import Question
from ropeconv.proof.importance.windows import find_tokenizer, make_windows, read_texts
from ropeconv.proof.reference.arithmetic import Arithmetic

WINDOW = 1024  # tokens
LOSS_TOKENS = 256
LAYERS = 2  # that are remembered: threads may still write of the last one


class _Products:
    """Sums of x x^T by parameter, and of squares where a parameter holds several experts.

    Matrices that are given the same inputs one after the other share them.
    """

    def __init__(self) -> None:
        self.squares = Squares()
        self._groups: dict[str, list[Any]] = {}
        self._same: dict[str, str] = {}
        self._last: tuple[str, Any] = ("", None)

    def add(self, name: str, whole: Any, number: int, rows: Any) -> None:
        """See Tally."""
        if whole.ndim > 2:
            self.squares.add(name, whole, number, rows)
            return
        first, before = self._last
        if (
            before is not None
            and before.shape == rows.shape
            and before.data_ptr() == rows.data_ptr()
        ):
            self._same[name] = first
            return
        self._last = (name, rows)  # held, so that nothing else comes to lie there
        parts = [rows[:, start:stop] for start, stop in groups_of(rows.shape[1])]
        known = self._groups.get(name)
        if known is None:
            self._groups[name] = [part.T @ part for part in parts]
            return
        for group, part in zip(known, parts, strict=True):
            group.addmm_(part.T, part)

    def of(self, name: str) -> Groups:
        """Of a matrix that is no expert's."""
        return _arrays(self._groups[name])

    @property
    def found(self) -> dict[str, Groups | Sums]:
        """By parameter."""
        moments = {name: self.of(name) for name in self._groups}
        same = {name: moments[first] for name, first in self._same.items()}
        return moments | same | {name: seen.sums for name, seen in self.squares.items()}


def _same(one: Any, other: Any) -> bool:
    """Whether they are one place in memory."""
    return bool(one.shape == other.shape and one.data_ptr() == other.data_ptr())


def _arrays(groups: Sequence[Any]) -> Groups:
    return [np.array(group.float().cpu().numpy()) for group in groups]


class LayerMoments:
    """Moments of `model` over windows of a text, made as they are asked for; see `Moments`."""

    def __init__(self, model: Model, gatherer: Gatherer, windows: Sequence[Sequence[int]]) -> None:
        self._model, self._gatherer = model, gatherer
        self._places = model.stack.places()
        self.windows = windows
        self._lock = Lock()
        self._steps = self._run()
        self._layers: dict[int, Mapping[str, Groups | Sums]] = {}
        self._done = 0
        self._head: list[NDArray[np.float32]] = []

    @property
    def names(self) -> Collection[str]:
        """Tensors of the model."""
        return self._places.keys()

    def of(self, name: str) -> Groups | Sums | None:
        """See `Moments`."""
        place = self._places.get(name)
        with self._lock:
            if place is None or place.layer is None:
                return self._of_head(name)
            while self._done <= place.layer:
                next(self._steps)
            return self._layers[place.layer].get(name)

    def losses(self, questions: Sequence[tuple[str, ...]], rounded: Rounded) -> Sequence[float]:
        """See `Moments`; on the first tokens of the first window."""
        ids = self.windows[0][:LOSS_TOKENS]
        return find_losses(self._model, self._gatherer.config, ids, questions, rounded)

    def _of_head(self, name: str) -> Groups | None:
        reference = self._gatherer.reference
        head = self._gatherer.by_tensor({reference.network.head_name: self._head})
        if name not in head:
            return None
        for _ in self._steps:
            pass
        return self._head

    def _run(self) -> Iterator[None]:
        """A layer's moments a step, then the head's."""
        reference = self._gatherer.reference
        network = reference.network
        own = _Products()

        def watch(number: int, weights: Mapping[str, Any]) -> Any:
            nonlocal own
            own = _Products()
            return watching(weights, own, prefix=network.layer_prefix(number))

        calls = [reference.call([list(ids)]) for ids in self.windows]
        outputs: Sequence[Any] = ()
        for number, returned in enumerate(reference.layers(calls, watch)):
            self._layers[number] = self._gatherer.by_tensor(own.found)
            self._layers.pop(number - LAYERS, None)
            self._done, outputs = number + 1, returned
            yield
        last = _Products()
        for hidden in reference.ends(calls, outputs):
            last.add("", hidden[0], 0, hidden[0])
        self._head += last.of("")


def make_moments(model: Model, calibration: Calibration) -> LayerMoments:
    """Those of `model` under its scaling. Nothing is run yet.

    ConfigError for a text that does not do, TokenizerError without a tokenizer, CheckpointError
    where the tensors do not make transformers' model.
    """
    config = replace_rope_parameters(model.checkpoint.config, huggingface_patch(model))
    gatherer = Gatherer(model, config, Arithmetic())
    windows = make_windows(
        find_tokenizer(model.checkpoint, gatherer.reference.model.config),
        list(read_texts(calibration.text).values()),
        size=min(WINDOW, model.main_rope.context, calibration.tokens),
        question=Question(tokens=calibration.tokens),
    )
    return LayerMoments(model, gatherer, windows)
