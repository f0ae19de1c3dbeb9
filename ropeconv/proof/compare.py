"""Rung: logits of the artefact against the reference's, position by position, block by block.

For one position, a the reference's logits and b the artefact's (v values each): NMSE = sum((b -
a)^2) / sum((a - mean a)^2); KL = sum softmax(a) (log softmax(a) - log softmax(b)), in nats; loss =
-log softmax(.)[next token]. A band's NMSE is the ratio of the sums over its positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ropeconv.errors import CheckpointError

Block = NDArray[np.float32]
Column = NDArray[np.float64]

SLAB = 1 << 22  # values in float64 at a time
BANDS = 4  # below L, and as wide past it


@dataclass(frozen=True)
class Rows:
    """One number a position, for every position in order. Loss is NaN at the last, which has no
    next token.
    """

    error: Column
    variance: Column
    max_abs: Column
    kl: Column
    same_top: NDArray[np.bool_]
    loss_reference: Column
    loss_artefact: Column


@dataclass(frozen=True)
class Band:
    """Positions start <= p < stop together. `*_at` is the position of the worst one; losses in nats
    a token.
    """

    start: int
    stop: int
    nmse: float
    nmse_max: float
    nmse_at: int
    max_abs: float
    max_abs_at: int
    kl: float
    kl_max: float
    kl_at: int
    top1: float
    loss_reference: float
    loss_artefact: float

    @property
    def loss_difference(self) -> float:
        """Mean loss of the artefact minus the reference's, nats a token."""
        return self.loss_artefact - self.loss_reference


def compare_logits(
    references: Sequence[Iterable[Block]],
    artefact: Iterable[Block],
    ids: Sequence[int],
    *,
    trained: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[list[Band], Band]]:
    """For each reference, (bands with an edge at `trained`, all positions).

    The artefact runs once, whatever the number of references, and one block of each side is held at
    a time. CheckpointError when the sides differ in width or in number of rows.
    """
    parts: list[list[Rows]] = [[] for _ in references]
    done = 0
    for *theirs, mine in pair_blocks(*references, artefact, total=len(ids)):
        following = np.array([*ids[done + 1 : done + 1 + len(mine)]], np.int64)
        for kept, block in zip(parts, theirs, strict=True):
            kept.append(measure_rows(block, mine, following))
        done += len(mine)
        if progress is not None:
            progress(done, len(ids))
    return [_banded(kept, len(ids), trained) for kept in parts]


def _banded(parts: Sequence[Rows], total: int, trained: int) -> tuple[list[Band], Band]:
    rows = Rows(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in Rows.__dataclass_fields__)
    )
    edges = band_edges(total, trained)
    bands = [summarise(rows, start, stop) for start, stop in itertools.pairwise(edges)]
    return bands, summarise(rows, 0, total)


def pair_blocks(*sides: Iterable[Block], total: int) -> Iterator[tuple[Block, ...]]:
    """Rows of all sides in step, however each cuts its blocks; exactly `total` rows. The artefact's
    come last.
    """
    sources = [iter(side) for side in sides]
    held: list[Block] = [np.empty((0, 0), np.float32)] * len(sources)
    done = 0
    while done < total:
        held = [
            block if len(block) else next(source, block)
            for source, block in zip(sources, held, strict=True)
        ]
        count = min(map(len, held))
        if count == 0:
            raise CheckpointError(
                f"one side gave {done} rows of logits for {total} tokens; the run is incomplete"
            )
        *theirs, width = [block.shape[1] for block in held]
        other = next((given for given in theirs if given != width), width)
        if other != width:
            raise CheckpointError(f"the artefact has {width} logits a token, the reference {other}")
        yield tuple(block[:count] for block in held)
        held = [block[count:] for block in held]
        done += count


def measure_rows(reference: Block, artefact: Block, following: NDArray[np.int64]) -> Rows:
    """The numbers of a block. reference, artefact: (n, v); following: the next token of each row
    but maybe the last.
    """
    step = max(1, SLAB // reference.shape[1])
    parts = [
        _measure(reference[i : i + step], artefact[i : i + step], following[i : i + step])
        for i in range(0, len(reference), step)
    ]
    return Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _measure(
    reference: Block, artefact: Block, following: NDArray[np.int64]
) -> tuple[NDArray[np.generic], ...]:
    a, b = reference.astype(np.float64), artefact.astype(np.float64)
    difference = b - a
    log_a, log_b = _log_softmax(a), _log_softmax(b)
    rows = np.arange(len(following))
    losses = np.full((2, len(a)), np.nan)
    losses[0, rows], losses[1, rows] = -log_a[rows, following], -log_b[rows, following]
    return (
        np.sum(difference**2, axis=1),
        np.sum((a - a.mean(axis=1, keepdims=True)) ** 2, axis=1),
        np.abs(difference).max(axis=1),
        np.sum(np.exp(log_a) * (log_a - log_b), axis=1),
        a.argmax(axis=1) == b.argmax(axis=1),
        losses[0],
        losses[1],
    )


def _log_softmax(logits: Column) -> Column:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), np.float64)


def summarise(rows: Rows, start: int, stop: int) -> Band:
    """One band of the rows; a value that is not finite stays so and fails every gate."""
    part = slice(start, stop)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = rows.error[part] / rows.variance[part]
        nmse = float(rows.error[part].sum() / rows.variance[part].sum())
    scored = slice(start, min(stop, len(rows.kl) - 1))
    return Band(
        start,
        stop,
        nmse,
        *_worst(ratio, start),
        *_worst(rows.max_abs[part], start),
        float(rows.kl[part].mean()),
        *_worst(rows.kl[part], start),
        float(rows.same_top[part].mean()),
        _mean(rows.loss_reference[scored]),
        _mean(rows.loss_artefact[scored]),
    )


def _worst(values: Column, start: int) -> tuple[float, int]:
    at = int(np.argmax(np.where(np.isnan(values), np.inf, values)))
    return float(values[at]), start + at


def _mean(values: Column) -> float:
    return float(values.mean()) if len(values) else 0.0


def band_edges(total: int, trained: int) -> list[int]:
    """Edges of position bands: up to BANDS equal ones below `trained`, as many past it as fit, an
    edge at `trained`.
    """
    below = min(total, trained)
    edges = [below * n // BANDS for n in range(BANDS + 1)]
    if total > trained:
        count = min(BANDS, max(1, round((total - trained) / (trained / BANDS))))
        edges += [trained + (total - trained) * n // count for n in range(1, count + 1)]
    return sorted(set(edges))
