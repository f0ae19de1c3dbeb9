"""LongRoPE's question for one model: which divisor for each rotary pair, found by evolution, judged on held-out text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ropeconv.errors import ConfigError, OutputError
from ropeconv.longctx.candidates import (
    Candidate,
    Space,
    rank_correlation,
    read_candidate,
    rope_parameters,
    seed_rows,
)
from ropeconv.longctx.compare import Comparison, Question, compare
from ropeconv.longctx.engine import Engine, config_of
from ropeconv.longctx.evolve import Found, evolve, follow_paper
from ropeconv.longctx.guide import make_guide
from ropeconv.longctx.judge import Difference, pair
from ropeconv.longctx.processes import Processes
from ropeconv.longctx.rows import plain_model, refuse_hopeless
from ropeconv.longctx.save import write_text
from ropeconv.longctx.scorer import Scorer
from ropeconv.longctx.text import GUIDE, fingerprint_of, need_tokenizer, standard_file
from ropeconv.model import Model
from ropeconv.verify.text import CAP, read_text

PROCEDURES = {"cmaes": evolve, "longrope": follow_paper}
RESULT = "searched"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """How to search. guide: needle or perplexity; prompts, tokens: of the guide; full: as long as L', no skipping.

    minutes, evaluations: the budget, of guiding losses; None: without that limit. text, held_out: files, None: the
    standard library's. held_out_tokens: None: L' and at most 16384; 0: no held-out check.
    """

    factor: float
    guide: str = "needle"
    procedure: str = "cmaes"
    prompts: int = 4
    tokens: int = 1024
    full: bool = False
    minutes: float | None = 15.0
    evaluations: int | None = None
    text: Path | None = None
    held_out: Sequence[Path] = ()
    held_out_tokens: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Searched:
    """What was found. scores: guide loss of the seeds and of the result, by name; held: the held-out check, or None.

    unwritable: the guide loss that LongRoPE's plain tokens would reach, when lower; no file format carries them.
    best_seed: on the held-out text; difference: the result against it past L; correlation: guide against held-out losses.
    """

    out: Path
    model: Model
    plan: Plan
    best: Candidate
    generations: int
    losses: int
    scores: dict[str, float]
    unwritable: float | None
    held: Comparison | None
    best_seed: str
    difference: Difference | None
    correlation: float


def search(
    source: str,
    plan: Plan,
    out: Path,
    *,
    original_context: int | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Searched | None:
    """Search `plan`'s space for the checkpoint at `source` and write the best factors to `out` as rope_parameters.

    Under `accelerate launch` the losses are shared out among the processes; only the main one returns a value. Raises
    RopeconvError for wrong options, a text that is too short and a model that no method lengthens.
    """
    _check(plan, out, resume=resume, force=force)
    model = plain_model(source, original_context=original_context)
    rows = seed_rows(model, plan.factor)
    refuse_hopeless(rows)
    if not rows:
        raise ConfigError(f"{source}: no method reaches {plan.factor:g} times its context; see ropeconv inspect")
    processes = Processes()
    engine = Engine(model, device=processes.device)
    scorer = _scorer(engine, model, plan, processes, out)
    scorer.open(_identity(plan, model, scorer), resume=resume, force=force)
    seeds = {row.label: read_candidate(row.model) for row in rows if row.model is not None}
    space = Space(len(next(iter(seeds.values())).rho), plan.factor)
    found = PROCEDURES[plan.procedure](scorer, space, list(seeds.values()), spent=_budget(scorer, plan, progress), seed=plan.seed)
    check = out.with_name(f".{out.name}.check")
    held = _hold_out(source, plan, check, scorer, found, original_context, progress)
    if not processes.main:
        return None
    result = _conclude(plan, out, scorer, found, seeds, held)
    write_text(out, json.dumps(searched_facts(result), indent=2, allow_nan=False) + "\n")
    scorer.history.unlink()
    shutil.rmtree(check, ignore_errors=True)
    return result


def _check(plan: Plan, out: Path, *, resume: bool, force: bool) -> None:
    if plan.procedure not in PROCEDURES:
        raise ConfigError(f"--procedure {plan.procedure!r}: give one of {', '.join(PROCEDURES)}")
    if not plan.factor > 1:
        raise ConfigError(f"--factor {plan.factor:g}: give a number above 1")
    if plan.minutes is not None and not plan.minutes > 0:
        raise ConfigError(f"--minutes {plan.minutes:g}: give a number above 0")
    if plan.minutes is None and plan.evaluations is None and plan.procedure == "cmaes":
        raise ConfigError("give a budget: --minutes or --evaluations")
    if out.exists() and not (force or resume):
        raise OutputError(f"{out} exists; pass --force to replace it")
    if not out.parent.is_dir():
        raise OutputError(f"{out.parent}: no such folder; make it or choose another place with -o")


def _scorer(engine: Engine, model: Model, plan: Plan, processes: Processes, out: Path) -> Scorer:
    tokenizer = need_tokenizer(engine.tokenizer, model.checkpoint.path)
    guide = make_guide(
        plan.guide,
        tokenizer,
        standard_file(GUIDE) if plan.text is None else read_text(plan.text),
        prompts=plan.prompts,
        tokens=plan.tokens,
        context=round(model.main_rope.original_context * plan.factor),
        full=plan.full,
        seed=plan.seed,
    )
    return Scorer(engine, model, plan.factor, guide, processes, out.with_name(f"{out.name}.history"))


def _identity(plan: Plan, model: Model, scorer: Scorer) -> dict[str, Any]:
    """What must be the same for losses to be used again, the prompts' own text too; budget and check may change."""
    free = {"minutes", "evaluations", "held_out", "held_out_tokens"}
    said = {key: str(value) for key, value in asdict(plan).items() if key not in free}
    prompts = fingerprint_of([asdict(prompt) for prompt in scorer.guide.prompts])
    return {**said, "prompts": prompts, "source": model.checkpoint.fingerprint, "config": config_of(model)}


def _budget(scorer: Scorer, plan: Plan, progress: Progress | None) -> Callable[[Found], bool]:
    def spent(found: Found) -> bool:  # noqa: ARG001 - the contract's signature
        minutes, losses = scorer.seconds / 60, scorer.count
        parts = [(minutes, plan.minutes), (losses, plan.evaluations)]
        share = max((used / limit for used, limit in parts if limit is not None), default=0.0)
        if progress is not None and scorer.processes.main:
            progress("searching", min(round(100 * share), 100), 100)
        return share >= 1

    return spent


def _hold_out(
    source: str,
    plan: Plan,
    folder: Path,
    scorer: Scorer,
    found: Found,
    original_context: int | None,
    progress: Progress | None,
) -> Comparison | None:
    """The result and the methods that it began from, on one long text that the search has not seen."""
    if plan.held_out_tokens == 0:
        return None
    question = Question(
        methods=[row.method for row in seed_rows(scorer.model, plan.factor)],
        factors=[plan.factor],
        parameters={RESULT: rope_parameters(found.best(plain=False), scorer.model, plan.factor)},
        text=plan.held_out,
        tokens=plan.held_out_tokens or min(round(scorer.model.main_rope.original_context * plan.factor), CAP),
        passkeys=0,
    )
    return compare(source, question, folder, engine=scorer.engine, original_context=original_context, progress=progress)


def _conclude(
    plan: Plan, out: Path, scorer: Scorer, found: Found, seeds: dict[str, Candidate], held: Comparison | None
) -> Searched:
    best, freest = found.best(plain=False), found.best(plain=True)
    scores = {name: found.scores[candidate] for name, candidate in seeds.items()} | {RESULT: found.scores[best]}
    best_seed, difference, correlation = min(seeds, key=lambda name: scores[name]), None, float("nan")
    if held is not None:
        start = min(held.model.main_rope.original_context, held.tokens // 2)
        losses = {result.row.label: result.measured.losses for result in held.results}
        means = {name: float(part[start:].mean()) for name, part in losses.items()}
        best_seed = min(seeds, key=lambda name: means[name])
        difference = pair(losses[RESULT], losses[best_seed], start, held.tokens)
        correlation = rank_correlation([scores[name] for name in scores], [means[name] for name in scores])
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


def verdict(found: Searched) -> str:
    """Whether the search was worth it, in plain words."""
    if found.difference is None:
        return f"no held-out check was run; on its own guide the best seed is {found.best_seed}"
    seed, delta = found.best_seed, found.difference
    words = {
        -1: f"the searched factors beat their best seed, {seed}, by {delta} on held-out text",
        0: f"the search did not beat its best seed: no clear difference from {seed} ({delta}) on held-out text",
        1: f"the search did not beat its best seed: {seed} is better by {delta} on held-out text; take that",
    }
    return words[found.difference.sign]


def searched_facts(found: Searched) -> dict[str, Any]:
    """What is written: `rope_parameters`, which every command takes, and how they were found."""
    held = None
    if found.held is not None:
        held = {result.row.label: result.long.perplexity if result.long else None for result in found.held.results}
    plan = {
        key: value if isinstance(value, int | float | str | None) else str(value) for key, value in asdict(found.plan).items()
    }
    return {
        "rope_parameters": rope_parameters(found.best, found.model, found.plan.factor),
        "search": {
            "plan": plan,
            "generations": found.generations,
            "losses": found.losses,
            "guide_loss": found.scores,
            "guide_loss_with_plain_tokens": found.unwritable,
            "held_out_perplexity_past_trained": held,
            "rank_correlation": found.correlation if found.correlation == found.correlation else None,
            "verdict": verdict(found),
        },
    }
