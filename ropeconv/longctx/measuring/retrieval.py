"""What is to be found in a long text, beside a pass key among filler.

After RULER's needle tasks (Hsieh et al., 2024, arXiv 2404.06654): `multi-key`, where the text is
made of other keys; `multi-value`, one name with several keys; `multi-query`, several names in one
question. Answers of several keys are in the order of the text, and each is asked for after those
before it, so that all of them are what greedy generation gives when all are retrieved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from ropeconv.errors import ConfigError, unknown_name
from ropeconv.longctx.measuring.passkeys import (
    FILLER,
    NAMES,
    NEEDLE,
    PASSKEY,
    QUESTION,
    Asked,
    KeyPrompt,
    ask,
    check_keys,
    draw_key,
    draw_keys,
    hide_needles,
    make_prompt,
    repeat,
)
from ropeconv.longctx.measuring.texts import encode_plain

WORDS = 4  # of a distractor's name: 65,536 of them
DISTRACTOR = "\nThe pass key of {name} is {key}."
ONE_OF_MANY = "\nOne of the pass keys of {name} is {key}. Keep it.\n"
ALL_VALUES = "\nWhat are all pass keys of {name}, in the order of these notes? They are"
ALL_NAMES = "\nWhat are the pass keys of {names}, in this order? They are"


class Maker(Protocol):
    """Makes a prompt of one task; see `make_prompt`."""

    def __call__(
        self, tokenizer: Any, *, tokens: int, keys: int, seed: int, advice: str
    ) -> KeyPrompt:
        """The prompt, the same for the same seed."""


def multi_key(tokenizer: Any, *, tokens: int, keys: int, seed: int, advice: str) -> KeyPrompt:
    """Keys to be told from distractors: every line of the text is the pass key of some name."""
    check_keys(keys)
    rng = np.random.default_rng([seed, tokens, 1])
    names = _long_names(rng)
    hidden = [(next(names), draw_key(rng)) for _ in range(keys)]
    lines = (DISTRACTOR.format(name=name, key=draw_key(rng)) for name in names)
    return hide_needles(
        tokenizer,
        [DISTRACTOR.format(name=name, key=key) for name, key in hidden],
        [ask(tokenizer, QUESTION.format(name=name), key) for name, key in hidden],
        fill=_whole_lines(tokenizer, lines),
        tokens=tokens,
        advice=advice,
    )


def multi_value(tokenizer: Any, *, tokens: int, keys: int, seed: int, advice: str) -> KeyPrompt:
    """Several keys of one name, asked for together."""
    check_keys(keys)
    rng = np.random.default_rng([seed, tokens, 2])
    name = NAMES[int(rng.integers(len(NAMES)))]
    values = [draw_key(rng) for _ in range(keys)]
    needles = [ONE_OF_MANY.format(name=name, key=key) for key in values]
    question = ALL_VALUES.format(name=name)
    return _together(tokenizer, needles, question, values, tokens=tokens, advice=advice)


def multi_query(tokenizer: Any, *, tokens: int, keys: int, seed: int, advice: str) -> KeyPrompt:
    """Keys of several names, asked for together."""
    check_keys(keys)
    hidden = draw_keys(np.random.default_rng([seed, tokens, 3]), keys)
    needles = [NEEDLE.format(name=name, key=key) for name, key in hidden]
    question = ALL_NAMES.format(names=", ".join(name for name, _ in hidden))
    values = [key for _, key in hidden]
    return _together(tokenizer, needles, question, values, tokens=tokens, advice=advice)


TASKS: dict[str, Maker] = {
    PASSKEY: make_prompt,
    "multi-key": multi_key,
    "multi-value": multi_value,
    "multi-query": multi_query,
}


def check_tasks(names: Sequence[str]) -> None:
    """ConfigError for a task that is none, or is there twice."""
    for name in names:
        if name not in TASKS:
            raise ConfigError(unknown_name("retrieval task", name, TASKS))
        if list(names).count(name) > 1:
            raise ConfigError(f"--retrieval: {name} is there twice; give it once")


def _together(
    tokenizer: Any,
    needles: Sequence[str],
    question: str,
    values: Sequence[str],
    *,
    tokens: int,
    advice: str,
) -> KeyPrompt:
    """One question for all values, which are given one after the other."""
    filler = encode_plain(tokenizer, FILLER)
    return hide_needles(
        tokenizer,
        needles,
        list(_in_turn(tokenizer, question, values)),
        fill=lambda count: repeat(filler, count),
        tokens=tokens,
        advice=advice,
    )


def _in_turn(tokenizer: Any, question: str, values: Sequence[str]) -> Iterator[Asked]:
    for number, value in enumerate(values):
        before = "".join(f" {earlier}," for earlier in values[:number])
        yield ask(tokenizer, f"{question}{before}", value)


def _long_names(rng: np.random.Generator) -> Iterator[str]:
    """Names of WORDS words each, none twice; ConfigError when there are no more."""
    for number in rng.permutation(len(NAMES) ** WORDS):
        digits = np.base_repr(int(number), len(NAMES)).zfill(WORDS)
        yield "-".join(NAMES[int(digit, len(NAMES))] for digit in digits)
    raise ConfigError("multi-key has no names for so long a text; give fewer --tokens")


def _whole_lines(tokenizer: Any, lines: Iterator[str]) -> Callable[[int], list[int]]:
    """Fills with lines, each used once and whole, and what is left with the usual filler."""
    filler = encode_plain(tokenizer, FILLER)
    kept: list[list[int]] = []

    def fill(count: int) -> list[int]:
        ids: list[int] = []
        while True:
            line = kept.pop() if kept else encode_plain(tokenizer, next(lines))
            if len(ids) + len(line) > count:
                kept.append(line)
                return ids + repeat(filler, count - len(ids))
            ids += line

    return fill
