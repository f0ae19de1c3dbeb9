"""Methods side by side: the same weights, text and positions, a verdict for each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ropeconv.kit.options import check_options
from ropeconv.kit.progress import StageProgress, within
from ropeconv.longctx.compare.plan import find_lengths, find_tasks, find_variants
from ropeconv.longctx.compare.question import Question
from ropeconv.longctx.compare.uses import Best, check_use, find_best
from ropeconv.longctx.compare.verdicts import Against, compare_losses, describe, recommend
from ropeconv.longctx.measuring.bands import (
    LossBand,
    band_width,
    measure_band,
    split_bands,
)
from ropeconv.longctx.measuring.engine import Engine
from ropeconv.longctx.measuring.measurement import Measured, Task, measure
from ropeconv.longctx.measuring.processes import Processes
from ropeconv.longctx.measuring.stored import Store
from ropeconv.longctx.measuring.variants import (
    AS_PROVEN,
    BASELINE,
    UNSCALED,
    Variant,
    unscaled_model,
)
from ropeconv.model import Model


@dataclass(frozen=True)
class Result:
    """One variant, measured.

    text, length: on which one, and its tokens. whole: over the whole text; short, long: below and
    past L; pi, none: against PI and against the unscaled model.
    """

    text: str
    length: int
    variant: Variant
    measured: Measured
    bands: Sequence[LossBand]
    whole: LossBand
    short: LossBand
    long: LossBand | None
    pi: Against | None
    none: Against | None
    verdict: str
    advice: str


@dataclass(frozen=True)
class Comparison:
    """Everything that was measured.

    tokens: of the longest text. results: of every text and length, in order of these. refused:
    variants that there is nothing to measure of, with the reason. best: the row for the stated use,
    None where none was stated.
    """

    source: str
    model: Model
    question: Question
    tokens: int
    results: Sequence[Result]
    refused: Sequence[Variant]
    best: Best | None

    @property
    def parts(self) -> list[Part]:
        """The results of each text and length."""
        keys = dict.fromkeys((result.text, result.length) for result in self.results)
        return [
            Part(*key, [r for r in self.results if (r.text, r.length) == key], len(keys) == 1)
            for key in keys
        ]


@dataclass(frozen=True)
class Part:
    """What was measured on one text of one length; alone: there is no other."""

    text: str
    length: int
    results: Sequence[Result]
    alone: bool

    @property
    def words(self) -> str:
        """What it was measured on, as titles say it."""
        return f"{self.length} tokens" + ("" if self.alone else f" of {self.text}")

    @property
    def tasks(self) -> list[str]:
        """The retrieval tasks that were asked here."""
        return list(dict.fromkeys(name for r in self.results for name in r.measured.retrieval))

    @property
    def caches(self) -> bool:
        """Whether a type of cache was asked for."""
        return any(result.variant.settings != AS_PROVEN for result in self.results)


def compare(
    source: str | Path,
    out: str | Path,
    *,
    question: Question | None = None,
    engine: Engine | None = None,
    original_context: int | None = None,
    base: str | Path | None = None,
    ignore_config_keys: Collection[str] = (),
    progress: StageProgress | None = None,
) -> Comparison | None:
    """Measure every variant of the checkpoint at `source` that `question` names, and judge it.

    out: a folder, in whose `rows` measured variants stay for the next run. engine: of the same
    checkpoint, where one is loaded already. original_context: L, where the config does not say.
    base: the model under an adapter. ignore_config_keys: those that you vouch have no bearing on
    logits. progress: in tokens of a variant.

    Under `accelerate launch` the variants are shared out among the processes, and only the main one
    returns a value. Raises RopeconvError for wrong options, a text that is too short, and a model
    that no method lengthens.
    """
    question = question or Question()
    check_options(question)
    model = unscaled_model(
        str(source), original_context=original_context, base=base, ignore=ignore_config_keys
    )
    variants = find_variants(model, question, ignore_config_keys)
    processes = Processes()
    runnable = [variant for variant in variants if not variant.refusal]
    lengths = find_lengths(model, question)
    check_use(question, [variant.label for variant in runnable], lengths)
    engine = engine or Engine(model, device=processes.device, dtype=question.dtype)
    tasks = find_tasks(engine, model, question, lengths)
    pairs = [(task, Store(Path(out) / "rows", task)) for task in tasks]
    listener = progress if processes.main else None
    for task, store, variant in processes.share([(*pair, v) for pair in pairs for v in runnable]):
        if store.load(variant) is None:
            stage = variant.label if len(tasks) == 1 else f"{variant.label}, {task.words}"
            store.save(variant, measure(variant, task, engine, within(listener, stage)))
    processes.wait()
    if not processes.main:
        return None
    results = [result for pair in pairs for result in _judge_all(*pair, runnable, question)]
    return Comparison(
        source=str(source),
        model=model,
        question=question,
        tokens=max(lengths),
        results=results,
        refused=[variant for variant in variants if variant.refusal],
        best=find_best(results, question, model.main_rope.original_context),
    )


def _judge_all(
    task: Task, store: Store, variants: Sequence[Variant], question: Question
) -> list[Result]:
    measured = {v.label: found for v in variants if (found := store.load(v)) is not None}
    return [_judge(variant, measured, task, question) for variant in variants]


def _judge(
    variant: Variant, measured: Mapping[str, Measured], task: Task, question: Question
) -> Result:
    found, trained = measured[variant.label], task.trained
    losses = found.losses
    end = len(found.losses) + 1
    short = losses if found.short is None else found.short
    pi = _against(variant, measured, _peer(variant, question), trained)
    none = _against(variant, measured, UNSCALED, trained)
    said = [describe(other, trained=trained) for other in (none, pi) if other is not None]
    return Result(
        text=task.name,
        length=len(task.ids),
        variant=variant,
        measured=found,
        bands=split_bands(losses, question.band or band_width(losses)),
        whole=measure_band(losses, 0, end),
        short=measure_band(short, 0, min(trained, end)),
        long=measure_band(losses, trained, end) if end - trained >= 2 else None,
        pi=pi,
        none=none,
        verdict="; ".join(said) or "the baseline",
        advice=recommend(variant.method, pi, none),
    )


def _peer(variant: Variant, question: Question) -> str | None:
    """PI of the same factor, or of the largest one for a variant without a factor."""
    if variant.method in {UNSCALED, BASELINE}:
        return None
    own = variant.factor
    factors = question.factors
    factor = own if own in factors else max(factors, default=None)
    return None if factor is None else f"{BASELINE} x{factor:g}"


def _against(
    variant: Variant, measured: Mapping[str, Measured], name: str | None, trained: int
) -> Against | None:
    if name is None or name == variant.label or name not in measured:
        return None
    mine, other = measured[variant.label].met, measured[name].losses
    return compare_losses(mine, other, name=name, trained=trained)
