"""Rung: logits of the artefact against the reference's, position by position, block by block.

For one position, a the reference's logits and b the artefact's (v values each): NMSE = sum((b -
a)^2) / sum((a - mean a)^2); KL = sum softmax(a) (log softmax(a) - log softmax(b)), in nats; loss =
-log softmax(.)[next token]. A band's NMSE is the ratio of the sums over its positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ropeconv.errors import CheckpointError

Block = NDArray[np.float32]
Column = NDArray[np.float64]

SLAB = 1 << 21  # values of each side in float64 at a time
NOTHING: Block = np.empty((0, 0), np.float32)
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
    sides: Mapping[str, Iterable[Block]],
    pairs: Sequence[tuple[str, str]],
    ids: Sequence[int],
    *,
    trained: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[list[Band], Band]]:
    """For each pair (reference, artefact) of sides, (bands with an edge at `trained`, all
    positions).

    Every side runs once, whatever the number of pairs it is in, and one block of each is held at a
    time. CheckpointError when sides differ in width or in number of rows.
    """
    parts: list[list[Rows]] = [[] for _ in pairs]
    done = 0
    for blocks in side_by_side(sides, total=len(ids)):
        count = len(next(iter(blocks.values())))
        following = np.array([*ids[done + 1 : done + 1 + count]], np.int64)
        for kept, rows in zip(parts, measure_rows(blocks, pairs, following), strict=True):
            kept.append(rows)
        done += count
        del blocks  # before the next ones are made
        if progress is not None:
            progress(done, len(ids))
    return [_banded(kept, len(ids), trained) for kept in parts]


def _banded(parts: Sequence[Rows], total: int, trained: int) -> tuple[list[Band], Band]:
    rows = _joined(parts)
    edges = band_edges(total, trained)
    bands = [summarise(rows, start, stop) for start, stop in itertools.pairwise(edges)]
    return bands, summarise(rows, 0, total)


def _joined(parts: Sequence[Rows]) -> Rows:
    names = Rows.__dataclass_fields__
    return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def side_by_side(sides: Mapping[str, Iterable[Block]], *, total: int) -> Iterator[dict[str, Block]]:
    """Rows of all sides in step, however each cuts its blocks; exactly `total` rows."""
    sources = {name: iter(side) for name, side in sides.items()}
    held = dict.fromkeys(sides, NOTHING)
    done = 0
    while done < total:
        for name, source in sources.items():
            if not len(held[name]):
                held[name] = next(source, held[name])
        count = min(map(len, held.values()))
        if count == 0:
            short = next(name for name, block in held.items() if not len(block))
            raise CheckpointError(
                f"{short} gave {done} rows of logits for {total} tokens; the run is incomplete"
            )
        _check_widths(held)
        yield {name: block[:count] for name, block in held.items()}
        # nothing that is used up stays alive beside the next block
        held = {n: b[count:] if len(b) > count else NOTHING for n, b in held.items()}
        done += count


def _check_widths(blocks: Mapping[str, Block]) -> None:
    (first, width), *others = ((name, block.shape[1]) for name, block in blocks.items())
    for name, other in others:
        if other != width:
            raise CheckpointError(f"{name} has {other} logits a token, {first} has {width}")


def measure_rows(
    blocks: Mapping[str, Block], pairs: Sequence[tuple[str, str]], following: NDArray[np.int64]
) -> list[Rows]:
    """The numbers of a block, for each pair. blocks: (n, v) of every side; following: the next
    token of each row but maybe the last.
    """
    count, width = next(iter(blocks.values())).shape
    step = max(1, SLAB // width)
    parts: list[list[Rows]] = [[] for _ in pairs]
    for start in range(0, count, step):
        part = slice(start, start + step)
        scored = {name: _score(rows[part], following[part]) for name, rows in blocks.items()}
        for kept, (reference, artefact) in zip(parts, pairs, strict=True):
            kept.append(_measure(scored[reference], scored[artefact]))
    return [_joined(part) for part in parts]


@dataclass(frozen=True)
class _Scored:
    """Rows of one side in float64. logits (n, v); top (n,): largest of each row, at first;
    powers (n, v): exp(logits - top); total (n,): their sum; loss (n,).
    """

    logits: Column
    top: Column
    first: NDArray[np.int64]
    powers: Column
    total: Column
    loss: Column


def _score(rows: Block, following: NDArray[np.int64]) -> _Scored:
    logits = rows.astype(np.float64)
    first = logits.argmax(axis=1)
    top = logits.max(axis=1)
    powers = np.exp(logits - top[:, None])
    total = powers.sum(axis=1)
    loss = np.full(len(logits), np.nan)
    known = np.arange(len(following))
    loss[known] = np.log(total[known]) + top[known] - logits[known, following]
    return _Scored(logits, top, first, powers, total, loss)


def _measure(a: _Scored, b: _Scored) -> Rows:
    difference = b.logits - a.logits
    mean = a.logits.mean(axis=1, keepdims=True)
    moved = np.log(b.total / a.total) + b.top - a.top
    return Rows(
        np.einsum("nv,nv->n", difference, difference),
        np.sum((a.logits - mean) ** 2, axis=1),
        np.abs(difference).max(axis=1),
        moved - np.einsum("nv,nv->n", a.powers, difference) / a.total,
        a.first == b.first,
        a.loss,
        b.loss,
    )


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
