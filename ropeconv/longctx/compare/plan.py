"""What a comparison measures, worked out before anything runs: variants, lengths, texts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ropeconv.errors import ConfigError
from ropeconv.longctx.compare.question import Question
from ropeconv.longctx.measuring.bands import BANDS
from ropeconv.longctx.measuring.engine import Engine
from ropeconv.longctx.measuring.measurement import Task
from ropeconv.longctx.measuring.passkeys import KeyPrompt
from ropeconv.longctx.measuring.retrieval import TASKS, check_tasks
from ropeconv.longctx.measuring.texts import HELD_OUT, encode, first_tokens, held_out_text
from ropeconv.longctx.measuring.variants import (
    Variant,
    cached_variants,
    default_methods,
    file_variant,
    method_variants,
    parameter_variant,
    refuse_hopeless,
)
from ropeconv.model import Model
from ropeconv.proof.run import open_any


def find_variants(model: Model, question: Question, ignore: Collection[str]) -> list[Variant]:
    """Every row; ConfigError where there is none, or one is there twice."""
    methods = default_methods() if question.methods is None else question.methods
    found = method_variants(model, methods, question.factors)
    refuse_hopeless(found)
    found += [parameter_variant(model, v, name) for name, v in question.parameters.items()]
    found += _files(question, ignore)
    if not found:
        raise ConfigError(
            "there is nothing to compare; give --methods, with --factors for those that have one"
        )
    labels = [variant.label for variant in found]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is there twice; give it once, or rename the file")
    return found


def _files(question: Question, ignore: Collection[str]) -> list[Variant]:
    """A row a file, and one under each type of cache that was asked for, where its runtime has a
    choice.
    """
    found: list[Variant] = []
    cached: list[Variant] = []
    for path in question.also:
        plain = file_variant(path, ignore=ignore)
        if plain.path is not None:
            open_any(plain.path)  # what cannot be opened is better known before the first hour
        more = cached_variants(plain, question.kv_types or ())  # None where no option was given
        cached += more
        found += [plain, *more]
    if question.kv_types and not cached:
        raise ConfigError(
            "--kv-types: no file of --also runs where there is such a choice; leave it out"
        )
    return found


def find_lengths(model: Model, question: Question) -> list[int]:
    """Tokens of every pass; ConfigError for lengths that say two things."""
    if question.lengths and question.tokens:
        raise ConfigError("--lengths and --tokens: give one of them")
    trained = model.main_rope.original_context
    alone = question.tokens or round(trained * max(question.factors, default=1.0))
    found = list(dict.fromkeys(question.lengths or [alone]))
    short = next((length for length in found if length < 2 * BANDS), None)
    if short is not None:
        raise ConfigError(f"--tokens {short}: give {2 * BANDS} or more")
    return found


def _texts(question: Question) -> list[tuple[str, str]]:
    """(name, text) of each that is measured by itself."""
    files = list(question.text)
    groups = [[file] for file in files] if question.apart and files else [files]
    names = [" + ".join(file.name for file in group) or HELD_OUT for group in groups]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is there twice; give it once, or rename the file")
    return [(name, held_out_text(group)) for name, group in zip(names, groups, strict=True)]


def find_tasks(
    engine: Engine, model: Model, question: Question, lengths: Sequence[int]
) -> list[Task]:
    """Every text in every length. Prompts hang on the length alone, so the first text has them."""
    tokenizer = engine.tokenizer
    prompts = {length: _prompts(tokenizer, length, question) for length in lengths}
    found = []
    for number, (name, text) in enumerate(_texts(question)):
        ids = encode(tokenizer, text)
        for length in lengths:
            own = first_tokens(ids, length, option="--tokens")
            asked = {} if number else prompts[length]
            trained = model.main_rope.original_context
            found.append(Task(name, text, own, trained, asked, question.dtype))
    return found


def _prompts(tokenizer: Any, tokens: int, question: Question) -> dict[str, list[KeyPrompt]]:
    check_tasks(question.retrieval)
    if not question.passkeys:
        return {}
    return {
        name: [
            TASKS[name](
                tokenizer,
                tokens=tokens,
                keys=question.passkeys,
                seed=seed,
                advice="give fewer --passkeys or more --tokens",
            )
            for seed in range(question.seed, question.seed + question.trials)
        ]
        for name in question.retrieval
    }
