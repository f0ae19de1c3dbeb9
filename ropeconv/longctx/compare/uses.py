"""The best row for a stated use: texts of a length, at a price that may be paid below L."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ropeconv.errors import ConfigError
from ropeconv.longctx.compare.question import Question
from ropeconv.longctx.measuring.bands import Losses, standard_error, tokens_at
from ropeconv.longctx.measuring.differences import Difference
from ropeconv.longctx.measuring.variants import UNSCALED

if TYPE_CHECKING:
    from ropeconv.longctx.compare.run import Result


@dataclass(frozen=True)
class Contender:
    """A row, over all texts. loss: of the tokens of the use, nats; price: mean loss below L less
    the unscaled model's, None without that row; behind: its loss less the best row's.
    """

    label: str
    loss: float
    price: float | None
    behind: Difference | None = None


@dataclass(frozen=True)
class Best:
    """The row of the lowest loss at the tokens from `start` to length - 1, of those that cost at
    most `price`.

    as_good: others that are not clearly behind it; too_dear: those that cost more.
    """

    start: int
    length: int
    price: float | None
    best: Contender
    as_good: Sequence[Contender]
    too_dear: Sequence[Contender]


def check_use(question: Question, labels: Sequence[str], lengths: Sequence[int]) -> None:
    """ConfigError for a use that the rows, or the lengths, cannot tell of."""
    length, price = question.use_length, question.use_price
    if length is None:
        if price is not None:
            raise ConfigError("--use-price belongs to --use-length; give both")
        return
    if length > max(lengths):
        raise ConfigError(
            f"--use-length {length}: the text is measured over {max(lengths)} tokens; give more "
            f"--tokens"
        )
    if price is not None and UNSCALED not in labels:
        raise ConfigError(
            f"--use-price: the price is told against the unscaled model; add {UNSCALED} to "
            f"--methods"
        )


def find_best(results: Sequence[Result], question: Question, trained: int) -> Best | None:
    """The best row of what was measured, over all texts; None where no use was stated.

    The passes taken are the shortest that reach the length.
    """
    length = question.use_length
    if length is None:
        return None
    reached = min(result.length for result in results if result.length >= length)
    losses: dict[str, list[Losses]] = {}  # of each text
    for result in results:
        if result.length == reached:
            losses.setdefault(result.variant.label, []).append(result.measured.met)
    start = trained if length > trained + 1 else 0
    found = [_contender(losses, label, (start, length), trained) for label in losses]
    limit = question.use_price
    dear = [one for one in found if limit is not None and not _within(one, limit)]
    best, *others = sorted((one for one in found if one not in dear), key=lambda one: one.loss)
    told = [replace(one, behind=_behind(losses, one, best, (start, length))) for one in others]
    as_good = [one for one in told if one.behind is not None and one.behind.sign <= 0]
    return Best(start, length, limit, best, as_good, dear)


def _contender(
    losses: Mapping[str, Sequence[Losses]], label: str, region: tuple[int, int], trained: int
) -> Contender:
    price = None
    if UNSCALED in losses:
        mine, plain = (_part(losses[name], (0, trained)) for name in (label, UNSCALED))
        price = float((mine - plain).mean())
    return Contender(label, float(_part(losses[label], region).mean()), price)


def _within(one: Contender, limit: float) -> bool:
    return one.price is not None and one.price <= limit


def _behind(
    losses: Mapping[str, Sequence[Losses]],
    one: Contender,
    best: Contender,
    region: tuple[int, int],
) -> Difference:
    delta = _part(losses[one.label], region) - _part(losses[best.label], region)
    return Difference(float(delta.mean()), standard_error(delta))


def _part(texts: Sequence[Losses], region: tuple[int, int]) -> NDArray[np.float64]:
    """The losses of the tokens of a region, of all texts."""
    return np.concatenate([tokens_at(losses, *region) for losses in texts]).astype(np.float64)


def describe_best(found: Best) -> str:
    """One line."""
    end = f"tokens {found.start} to {found.length}"
    price = "" if found.price is None else f" that cost at most {found.price:g} nats below L"
    line = f"best for texts of {found.length} tokens{price}: {_words(found.best)} over {end}"
    if found.as_good:
        line += f"; not clearly behind: {', '.join(map(_words, found.as_good))}"
    if found.too_dear:
        line += f"; too dear: {', '.join(map(_words, found.too_dear))}"
    return line


def _words(one: Contender) -> str:
    price = "" if one.price is None else f", {one.price:+.3f} below L"
    return f"{one.label} (perplexity {np.exp(one.loss):.4g}{price})"
