"""What one pass over a text does not show: far positions, decoding with a cache, padding on either
side, the table's end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from converters.to_onnx.run import Floats, Ints, Runner
from ropeconv.artefact import Probe

SCATTERED = 512  # tokens: enough that their positions' differences reach every length
BATCH = 24  # tokens of a padded row
PADDING = 5
STEPS = 3  # tokens that are decoded one by one


def make_probes(
    runner: Runner, *, context: int, switch: int | None, rows: int | None
) -> list[Probe]:
    """switch: LongRoPE's, in tokens; rows: of the cos table, past which a position is refused."""
    found = [*_far(runner, context, switch), *_padded(runner, context)]
    return found if rows is None else [*found, *_outside(runner, rows)]


def _far(runner: Runner, context: int, switch: int | None) -> Iterator[Probe]:
    """Positions to the end, in one call and decoded."""
    for name, reach in _reaches(context, switch):
        places = _scatter(min(SCATTERED, reach), reach)[None]
        yield _probe(runner, f"scattered positions up to {reach - 1}", places)
        places = _tail(min(64, reach - 1), reach)[None]
        title = f"decoding with a cache up to {reach - 1}{name}"
        yield _probe(runner, title, places, steps=STEPS)


def _padded(runner: Runner, context: int) -> Iterator[Probe]:
    """A batch with one padded row, then decoded."""
    count = min(BATCH, context)
    left = np.ones((2, count), np.int64)
    left[0, :PADDING] = 0
    middle = np.ones((2, count), np.int64)
    middle[1, count - STEPS - PADDING : count - STEPS] = 0
    for name, mask in (("left", left), ("right", middle)):
        places = np.where(mask, np.cumsum(mask, axis=1) - 1, 1)
        title = f"rows padded on the {name}, then decoded"
        yield _probe(runner, title, places, mask=mask, steps=STEPS)


def _outside(runner: Runner, rows: int) -> Iterator[Probe]:
    """Positions on either side of the table."""
    past = np.array([[rows - 1, rows]])
    yield _probe(runner, f"position {rows}, past the table", past, refused=True)
    below = np.array([[-1, rows - 1]])
    yield _probe(runner, f"position -1 beside {rows - 1}", below, refused=True)


def _reaches(context: int, switch: int | None) -> Iterator[tuple[str, int]]:
    """How far positions go: to the end, and for LongRoPE to the end of the short table too."""
    yield "", context
    if switch is not None and switch < context:
        yield " (short factors)", switch


def _scatter(count: int, reach: int) -> Ints:
    """`count` different positions from 0 to reach - 1 in order, both ends among them.

    Their gaps have every size.
    """
    if count >= reach:
        return np.arange(reach)
    inner = 1 + np.random.default_rng(1).choice(reach - 2, count - 2, replace=False)
    return np.concatenate([[0], np.sort(inner), [reach - 1]]).astype(np.int64)


def _tail(count: int, reach: int) -> Ints:
    """Scattered positions whose last ones are the last of all."""
    places = _scatter(count, reach - STEPS)
    return np.concatenate([places, np.arange(reach - STEPS, reach)])


def _probe(
    runner: Runner,
    name: str,
    places: Ints,
    *,
    mask: Ints | None = None,
    steps: int = 0,
    refused: bool = False,
) -> Probe:
    mask = np.ones_like(places) if mask is None else mask
    return Probe(name, places, mask, partial(_run, runner, places, mask, steps), refused)


def _run(runner: Runner, places: Ints, mask: Ints, steps: int, ids: Ints) -> Floats:
    """(b, s, v): all but the last `steps` tokens in one call, those one by one with the cache."""
    cut = ids.shape[1] - steps
    logits, past = runner.step(ids[:, :cut], places[:, :cut], mask[:, :cut])
    parts: Sequence[Floats] = [logits]
    for at in range(cut, ids.shape[1]):
        new = slice(at, at + 1)
        one, past = runner.step(ids[:, new], places[:, new], mask[:, : at + 1], past)
        parts = [*parts, one]
    return np.concatenate(parts, axis=1)
