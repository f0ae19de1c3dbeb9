"""LongRoPE's question for one model: which divisor for each rotary pair.

Found by evolution, judged on held-out text.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path

from ropeconv.errors import ConfigError, OutputError
from ropeconv.kit.progress import StageProgress
from ropeconv.longctx.compare.question import Question
from ropeconv.longctx.compare.run import Comparison, compare
from ropeconv.longctx.measuring.differences import Difference, paired_difference
from ropeconv.longctx.measuring.engine import Engine
from ropeconv.longctx.measuring.processes import Processes
from ropeconv.longctx.measuring.records import write_text
from ropeconv.longctx.measuring.variants import unscaled_model
from ropeconv.longctx.search.candidates import (
    Candidate,
    Space,
    rank_correlation,
    read_candidate,
    rope_parameters,
    seed_variants,
)
from ropeconv.longctx.search.guides import make_guide
from ropeconv.longctx.search.plan import Plan
from ropeconv.longctx.search.procedures import PROCEDURES, Found, Spent
from ropeconv.longctx.search.report import Searched, searched_facts
from ropeconv.longctx.search.scores import Scorer, identity
from ropeconv.model import Model
from ropeconv.proof.text import CAP

RESULT = "searched"

HeldOut = tuple[str, Difference | None, float]
"""The best seed, the result's difference from it, the correlation of guide and held-out losses."""


def search(
    source: str | Path,
    out: str | Path,
    *,
    plan: Plan,
    original_context: int | None = None,
    base: str | Path | None = None,
    ignore_config_keys: Collection[str] = (),
    resume: bool = False,
    force: bool = False,
    progress: StageProgress | None = None,
) -> Searched | None:
    """Search rotary factors for the checkpoint at `source`.

    The best are written to `out` as Hugging Face's rope_parameters. original_context: L, where the
    config does not say. base: the model under an adapter. ignore_config_keys: those that you vouch
    have no bearing on logits. resume: go on with an interrupted search of the same plan; force:
    replace what is in the way. progress: in percent of the budget.

    Under `accelerate launch` the losses are shared out among the processes; only the main one
    returns a value. Raises RopeconvError for wrong options, a text that is too short and a model
    that no method lengthens.
    """
    plan = plan.with_budget()
    out = Path(out)
    plan.check()
    _check_output(out, replace=force or resume)
    model = unscaled_model(
        str(source), original_context=original_context, base=base, ignore=ignore_config_keys
    )
    seeds = _seeds(model, str(source), plan)
    processes = Processes()
    scorer = _scorer(model, plan, processes, out)
    scorer.open(identity(plan, model, scorer.guide), resume=resume, force=force)
    found = _evolve(scorer, plan, list(seeds.values()), progress)
    check = out.with_name(f".{out.name}.check")
    held = None
    if plan.held_out_tokens != 0:
        held = compare(
            source,
            check,
            question=_question(plan, scorer, found),
            engine=scorer.engine,
            original_context=original_context,
            base=base,
            ignore_config_keys=ignore_config_keys,
            progress=progress,
        )
    if not processes.main:
        return None
    result = _conclude(plan, out, scorer, found, seeds, held)
    _write(result)
    scorer.history.unlink()
    shutil.rmtree(check, ignore_errors=True)
    return result


def _write(result: Searched) -> None:
    facts = json.dumps(searched_facts(result), indent=2, allow_nan=False)
    write_text(result.out, f"{facts}\n")


def _check_output(out: Path, *, replace: bool) -> None:
    if out.exists() and not replace:
        raise OutputError(f"{out} exists; pass --force to replace it")
    if not out.parent.is_dir():
        raise OutputError(f"{out.parent}: no such folder; make it or choose another place with -o")


def _seeds(model: Model, source: str, plan: Plan) -> dict[str, Candidate]:
    """What the search begins with, by name."""
    variants = seed_variants(model, plan.factor)
    if not variants:
        raise ConfigError(
            f"{source}: no method reaches {plan.factor:g} times its context; see ropeconv inspect"
        )
    return {v.label: read_candidate(v.model) for v in variants if v.model is not None}


def _scorer(model: Model, plan: Plan, processes: Processes, out: Path) -> Scorer:
    engine = Engine(model, device=processes.device)
    guide = make_guide(plan, engine.tokenizer, context=_context(model, plan))
    history = out.with_name(f"{out.name}.history")
    return Scorer(engine, model, plan.factor, guide, processes, history)


def _context(model: Model, plan: Plan) -> int:
    """L' in tokens."""
    return round(model.main_rope.original_context * plan.factor)


def _evolve(
    scorer: Scorer, plan: Plan, seeds: list[Candidate], progress: StageProgress | None
) -> Found:
    """The plan's procedure from the seeds on, until its budget is spent."""
    space = Space(len(seeds[0].rho), plan.factor)
    procedure = PROCEDURES[plan.procedure]
    return procedure(scorer, space, seeds, spent=_budget(scorer, plan, progress), seed=plan.seed)


def _budget(scorer: Scorer, plan: Plan, progress: StageProgress | None) -> Spent:
    def spent(_: Found) -> bool:
        used = ((scorer.seconds / 60, plan.minutes), (scorer.count, plan.evaluations))
        share = max((n / limit for n, limit in used if limit is not None), default=0.0)
        if progress is not None and scorer.processes.main:
            progress("searching", min(round(100 * share), 100), 100)
        return share >= 1

    return spent


def _question(plan: Plan, scorer: Scorer, found: Found) -> Question:
    """The result beside the methods it began from, on a long text that the search has not seen."""
    model = scorer.model
    return Question(
        methods=[variant.method for variant in seed_variants(model, plan.factor)],
        factors=[plan.factor],
        parameters={RESULT: rope_parameters(found.best(plain=False), model, plan.factor)},
        text=plan.held_out,
        tokens=plan.held_out_tokens or min(_context(model, plan), CAP),
        passkeys=0,
    )


def _conclude(
    plan: Plan,
    out: Path,
    scorer: Scorer,
    found: Found,
    seeds: dict[str, Candidate],
    held: Comparison | None,
) -> Searched:
    best, freest = found.best(plain=False), found.best(plain=True)
    scores = {name: found.scores[candidate] for name, candidate in seeds.items()}
    scores[RESULT] = found.scores[best]
    best_seed, difference, correlation = _check(scores, held)
    return Searched(
        out=out,
        model=scorer.model,
        plan=plan,
        best=best,
        generations=found.generations,
        losses=scorer.count,
        scores=scores,
        unwritable=found.scores[freest] if freest.plain_tokens else None,
        held=held,
        best_seed=best_seed,
        difference=difference,
        correlation=correlation,
    )


def _check(scores: dict[str, float], held: Comparison | None) -> HeldOut:
    """What the held-out text says, past L where the text reaches it; or the guide alone."""
    seeds = [name for name in scores if name != RESULT]
    if held is None:
        return min(seeds, key=lambda name: scores[name]), None, float("nan")
    start = min(held.model.main_rope.original_context, held.tokens // 2)
    losses = {result.variant.label: result.measured.losses for result in held.results}
    means = {name: float(part[start:].mean()) for name, part in losses.items()}
    best = min(seeds, key=lambda name: means[name])
    difference = paired_difference(losses[RESULT], losses[best], start, held.tokens)
    names = list(scores)
    correlation = rank_correlation([scores[n] for n in names], [means[n] for n in names])
    return best, difference, correlation
