"""Methods side by side: the same weights, text and positions, a verdict for each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ropeconv.errors import ConfigError
from ropeconv.kit.options import check_options
from ropeconv.kit.progress import StageProgress, within
from ropeconv.longctx.compare.question import Question
from ropeconv.longctx.compare.verdicts import Against, compare_losses, describe, recommend
from ropeconv.longctx.measuring.bands import (
    BANDS,
    LossBand,
    band_width,
    measure_band,
    split_bands,
)
from ropeconv.longctx.measuring.engine import Engine
from ropeconv.longctx.measuring.measurement import Measured, Task, measure
from ropeconv.longctx.measuring.passkeys import KeyPrompt, make_prompt
from ropeconv.longctx.measuring.processes import Processes
from ropeconv.longctx.measuring.stored import Store
from ropeconv.longctx.measuring.texts import encode, first_tokens, held_out_text
from ropeconv.longctx.measuring.variants import (
    BASELINE,
    UNSCALED,
    Variant,
    default_methods,
    file_variant,
    method_variants,
    parameter_variant,
    refuse_hopeless,
    unscaled_model,
)
from ropeconv.model import Model


@dataclass(frozen=True)
class Result:
    """One variant, measured.

    whole: over the whole text; short, long: below and past L; pi, none: against PI and against the
    unscaled model.
    """

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

    refused: variants that there is nothing to measure of, with the reason.
    """

    source: str
    model: Model
    question: Question
    tokens: int
    results: Sequence[Result]
    refused: Sequence[Variant]


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
    variants = _variants(model, question, ignore_config_keys)
    _open_files(variants)
    processes = Processes()
    engine = engine or Engine(model, device=processes.device, dtype=question.dtype)
    task = _task(engine, model, question)
    store = Store(Path(out) / "rows", task)
    runnable = [variant for variant in variants if not variant.refusal]
    listener = progress if processes.main else None
    for variant in processes.share([v for v in runnable if store.load(v) is None]):
        store.save(variant, measure(variant, task, engine, within(listener, variant.label)))
    processes.wait()
    if not processes.main:
        return None
    measured = {v.label: found for v in runnable if (found := store.load(v)) is not None}
    return Comparison(
        source=str(source),
        model=model,
        question=question,
        tokens=len(task.ids),
        results=[_judge(v, measured, trained=task.trained, question=question) for v in runnable],
        refused=[variant for variant in variants if variant.refusal],
    )


def _variants(model: Model, question: Question, ignore: Collection[str]) -> list[Variant]:
    methods = default_methods() if question.methods is None else question.methods
    found = method_variants(model, methods, question.factors)
    refuse_hopeless(found)
    found += [parameter_variant(model, v, name) for name, v in question.parameters.items()]
    found += [file_variant(path, ignore=ignore) for path in question.also]
    if not found:
        raise ConfigError(
            "there is nothing to compare; give --methods, with --factors for those that have one"
        )
    labels = [variant.label for variant in found]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is there twice; give it once, or rename the file")
    return found


def _open_files(variants: Sequence[Variant]) -> None:
    """A file that cannot be opened is better known before the first hour."""
    from ropeconv.proof.run import open_any

    for variant in variants:
        if variant.path is not None:
            open_any(variant.path)


def _task(engine: Engine, model: Model, question: Question) -> Task:
    trained = model.main_rope.original_context
    wanted = question.tokens or round(trained * max(question.factors, default=1.0))
    tokenizer = engine.tokenizer
    text = held_out_text(question.text)
    ids = first_tokens(encode(tokenizer, text), wanted, option="--tokens")
    if wanted < 2 * BANDS:
        raise ConfigError(f"--tokens {wanted}: give {2 * BANDS} or more")
    return Task(text, ids, trained, _prompts(tokenizer, wanted, question), question.dtype)


def _prompts(tokenizer: Any, tokens: int, question: Question) -> list[KeyPrompt]:
    if not question.passkeys:
        return []
    return [
        make_prompt(
            tokenizer,
            tokens=tokens,
            keys=question.passkeys,
            seed=seed,
            advice="give fewer --passkeys or more --tokens",
        )
        for seed in range(question.seed, question.seed + question.trials)
    ]


def _judge(
    variant: Variant, measured: Mapping[str, Measured], *, trained: int, question: Question
) -> Result:
    found = measured[variant.label]
    losses = found.losses
    end = len(found.losses) + 1
    short = losses if found.short is None else found.short
    pi = _against(variant, measured, _peer(variant, question), trained)
    none = _against(variant, measured, UNSCALED, trained)
    said = [describe(other, trained=trained) for other in (none, pi) if other is not None]
    return Result(
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
    mine, other = measured[variant.label], measured[name].losses
    losses = mine.losses
    if mine.short is not None:  # what a text below L meets is the short table
        losses = np.concatenate([mine.short, losses[len(mine.short) :]])
    return compare_losses(losses, other, name=name, trained=trained)
