"""Methods side by side: the same weights, text and positions, a verdict for each against PI and the unscaled model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ropeconv.errors import ConfigError
from ropeconv.longctx.bands import Band, measure_band, split_bands
from ropeconv.longctx.engine import Engine
from ropeconv.longctx.judge import Against, compare_losses, describe, recommend
from ropeconv.longctx.measure import Measured, Store, Task, measure_row
from ropeconv.longctx.passkey import Prompt, make_prompt
from ropeconv.longctx.processes import Processes
from ropeconv.longctx.rows import NONE, Row, file_row, method_rows, parameter_row, plain_model, refuse_hopeless
from ropeconv.longctx.text import encode, first_tokens, held_out_text, need_tokenizer
from ropeconv.model import Model

BANDS = 8
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Question:
    """What is compared and on what.

    also: tuned checkpoints and finished files; parameters: a row's name -> rope_parameters. text: files, empty: `_pydecimal.py`.
    tokens: None: L times the largest factor. band: positions a band, None: an eighth of the tokens. passkeys: keys a
    prompt; trials: prompts.
    """

    methods: Sequence[str]
    factors: Sequence[float]
    also: Sequence[Path] = ()
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    text: Sequence[Path] = ()
    tokens: int | None = None
    band: int | None = None
    passkeys: int = 8
    trials: int = 1
    seed: int = 0
    dtype: str = "float32"


@dataclass(frozen=True)
class Result:
    """One row, measured. whole: over the whole text; short, long: below and past L; against: PI and the unscaled model."""

    row: Row
    measured: Measured
    bands: Sequence[Band]
    whole: Band
    short: Band
    long: Band | None
    pi: Against | None
    none: Against | None
    verdict: str
    advice: str


@dataclass(frozen=True)
class Comparison:
    """Everything that was measured. refused: rows that there is nothing to measure of, with the reason."""

    source: str
    model: Model
    question: Question
    tokens: int
    results: Sequence[Result]
    refused: Sequence[Row]


def compare(
    source: str,
    question: Question,
    folder: Path,
    *,
    engine: Engine | None = None,
    original_context: int | None = None,
    progress: Progress | None = None,
) -> Comparison | None:
    """Measure every row of `question` and judge it; measured rows stay in `folder`/rows for the next run.

    engine: of the same checkpoint, where one is loaded already.

    Under `accelerate launch` the rows are shared out among the processes, and only the main one returns a value. Raises
    RopeconvError for wrong options, a text that is too short, and a model that no method lengthens.
    """
    model = plain_model(source, original_context=original_context)
    rows = _rows(model, question)
    _check_first(rows)
    processes = Processes()
    engine = engine or Engine(model, device=processes.device, dtype=question.dtype)
    task = _task(engine, model, question)
    store = Store(folder / "rows", task)
    runnable = [row for row in rows if not row.refusal]
    for row in processes.share([row for row in runnable if store.load(row) is None]):
        store.save(row, measure_row(row, task, engine, _stage(progress if processes.main else None, row.label)))
    processes.wait()
    if not processes.main:
        return None
    measured = {row.label: found for row in runnable if (found := store.load(row)) is not None}
    results = [_judge(row, measured, model=model, question=question) for row in runnable]
    return Comparison(source, model, question, len(task.ids), results, [row for row in rows if row.refusal])


def _rows(model: Model, question: Question) -> list[Row]:
    rows = method_rows(model, question.methods, question.factors)
    refuse_hopeless(rows)
    rows += [parameter_row(model, values, name) for name, values in question.parameters.items()]
    rows += [file_row(path) for path in question.also]
    if not rows:
        raise ConfigError("there is nothing to compare; give --methods, with --factors for those that have one")
    labels = [row.label for row in rows]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is there twice; give it once, or rename the file")
    return rows


def _check_first(rows: Sequence[Row]) -> None:
    from ropeconv.verify.run import open_any

    for row in rows:
        if row.path is not None:
            open_any(row.path)


def _task(engine: Engine, model: Model, question: Question) -> Task:
    trained = model.main_rope.original_context
    wanted = question.tokens or round(trained * max(question.factors, default=1.0))
    tokenizer = need_tokenizer(engine.tokenizer, model.checkpoint.path)
    text = held_out_text(question.text)
    ids = first_tokens(encode(tokenizer, text), wanted, option="--tokens")
    if wanted < 2 * BANDS:
        raise ConfigError(f"--tokens {wanted}: give {2 * BANDS} or more")
    return Task(text, ids, trained, _prompts(tokenizer, wanted, question), question.dtype)


def _prompts(tokenizer: Any, tokens: int, question: Question) -> list[Prompt]:
    if not question.passkeys:
        return []
    seeds = range(question.seed, question.seed + question.trials)
    advice = "give fewer --passkeys or more --tokens"
    return [make_prompt(tokenizer, tokens=tokens, keys=question.passkeys, seed=seed, advice=advice) for seed in seeds]


def _judge(row: Row, measured: Mapping[str, Measured], *, model: Model, question: Question) -> Result:
    found, trained = measured[row.label], model.main_rope.original_context
    losses, end = found.losses, len(found.losses) + 1
    width = question.band or -(-end // BANDS)
    short = losses if found.short is None else found.short
    pi, none = _peer(row, measured, question, trained), _against(row, measured, NONE, trained)
    said = [describe(against, trained=trained) for against in (none, pi) if against is not None]
    return Result(
        row,
        found,
        split_bands(losses, width),
        measure_band(losses, 0, end),
        measure_band(short, 0, min(trained, end)),
        measure_band(losses, trained, end) if end - trained >= 2 else None,
        pi,
        none,
        "; ".join(said) or "the baseline",
        recommend(row.method, pi, none),
    )


def _peer(row: Row, measured: Mapping[str, Measured], question: Question, trained: int) -> Against | None:
    """PI of the same factor, or of the largest one for a row without a factor."""
    if row.method in {NONE, "pi"}:
        return None
    factor = row.factor if row.factor in question.factors else max(question.factors, default=None)
    return None if factor is None else _against(row, measured, f"pi x{factor:g}", trained)


def _against(row: Row, measured: Mapping[str, Measured], name: str, trained: int) -> Against | None:
    if name == row.label or name not in measured:
        return None
    mine, other = measured[row.label], measured[name].losses
    losses = mine.losses
    if mine.short is not None:  # what a text below L meets is the short table
        losses = np.concatenate([mine.short, losses[len(mine.short) :]])
    return compare_losses(losses, other, name=name, trained=trained)


def _stage(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(name, done, total)
