"""Passkey retrieval by distance: keys hidden in a long text, each asked for at its end.

After Mohtashami and Jaggi, "Landmark Attention", 2023, with several keys in one text, so that one long pass gives every
distance. Keys are scored with the answer given digit by digit: loss and rank of each. A key whose every digit ranks first
is one that greedy generation gives, token for token, so that generation needs no run of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropeconv.errors import ConfigError
from ropeconv.longctx.engine import Engine, Progress, run_base
from ropeconv.verify.reference import apply_head

NAMES = ("amber", "basil", "cedar", "dune", "ember", "fjord", "grove", "heron", "iris", "jade", "kelp", "lotus", "maple",
         "nettle", "opal", "pearl")  # fmt: skip
OPENING = "Several pass keys are written somewhere in these notes. Find and keep them.\n"
FILLER = "The mill stands by the water. Boats come in the morning and leave before noon. Nothing else happens here. "
NEEDLE = "\nThe pass key of {name} is {key}. Keep it: the pass key of {name} is {key}.\n"
QUESTION = "\nWhat is the pass key of {name}? The pass key of {name} is"


@dataclass(frozen=True)
class Prompt:
    """ids: the text with its keys. asked: (question ids, answer ids) of each key. distances: positions, key to question.

    positions: of the ids, and of the first token of a question as one more entry.
    """

    ids: list[int]
    asked: list[tuple[list[int], list[int]]]
    distances: list[int]
    positions: list[int]


@dataclass(frozen=True)
class Recall:
    """One key of one prompt. distance: tokens; loss: mean over the answer's tokens, nats; rank: the worst, 1 is first."""

    distance: int
    loss: float
    rank: int

    @property
    def retrieved(self) -> bool:
        """Whether greedy generation gives the key."""
        return self.rank == 1


def make_prompt(tokenizer: Any, *, tokens: int, keys: int, seed: int, advice: str) -> Prompt:
    """A prompt whose text and one question fill `tokens` tokens, with `keys` keys at even distances.

    ConfigError, with `advice`, when the keys do not fit.
    """
    if not 1 <= keys <= len(NAMES):
        raise ConfigError(f"--passkeys {keys}: give 0 to {len(NAMES)}")
    rng = np.random.default_rng([seed, tokens])
    names = [NAMES[i] for i in rng.permutation(len(NAMES))[:keys]]
    numbers = [str(rng.integers(10_000, 100_000)) for _ in names]
    needles = [_plain(tokenizer, NEEDLE.format(name=name, key=key)) for name, key in zip(names, numbers, strict=True)]
    asked = [_question(tokenizer, name, key) for name, key in zip(names, numbers, strict=True)]
    opening = [int(i) for i in tokenizer(OPENING, verbose=False)["input_ids"]]
    room = tokens - len(opening) - sum(map(len, needles)) - max(len(q) + len(a) for q, a in asked)
    filler = _plain(tokenizer, FILLER)
    if room < keys * len(filler):
        raise ConfigError(f"{tokens} tokens are too few for {keys} pass keys; {advice}")
    ids, starts = list(opening), []
    for number, needle in enumerate(needles):
        ids += _fill(filler, room * number // keys - (len(ids) - len(opening) - sum(map(len, needles[:number]))))
        starts.append(len(ids))
        ids += needle
    ids += _fill(filler, room + len(opening) + sum(map(len, needles)) - len(ids))
    return Prompt(ids, asked, [len(ids) - start for start in starts], list(range(len(ids) + 1)))


def spread_prompt(prompt: Prompt, context: int) -> Prompt:
    """The prompt with positions that jump before every key, so that its questions end at `context`.

    Attention sees only how far apart two tokens are: a short text exercises far distances at the cost of its own length.
    It does not have the many tokens that a text of that length would also have to look past.
    """
    longest = max(len(question) + len(answer) for question, answer in prompt.asked)
    starts = [len(prompt.ids) - distance for distance in prompt.distances]
    jump = (context - longest - len(prompt.ids)) // len(starts)
    shifts = np.searchsorted(starts[1:], np.arange(len(prompt.ids) + 1), side="right") * jump
    shifts[-1] = len(starts) * jump
    positions = [int(i) for i in np.arange(len(prompt.ids) + 1) + shifts]
    return Prompt(prompt.ids, prompt.asked, [positions[-1] - positions[start] for start in starts], positions)


def _fill(filler: Sequence[int], count: int) -> list[int]:
    return (list(filler) * (count // len(filler) + 1))[:count]


def _plain(tokenizer: Any, text: str) -> list[int]:
    return [int(i) for i in tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]


def _question(tokenizer: Any, name: str, key: str) -> tuple[list[int], list[int]]:
    """The question's ids, and those of the answer as they follow it in one text."""
    question = QUESTION.format(name=name)
    alone, whole = _plain(tokenizer, question), _plain(tokenizer, f"{question} {key}")
    same = next((i for i, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), len(alone))
    return whole[:same], whole[same:]


def ask(engine: Engine, prompt: Prompt, progress: Progress | None = None) -> list[Recall]:
    """Every key of the prompt: one pass over its text, then each question after it, from the same cache."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache()  # without the config's windows, so that it can be cut back; the masks keep them
    ids = torch.tensor([prompt.ids], device=engine.device)
    engine.hidden(ids, torch.tensor([prompt.positions[:-1]], device=engine.device), progress=progress, cache=cache)
    asked_at, found = prompt.positions[-1], []
    for (question, answer), distance in zip(prompt.asked, prompt.distances, strict=True):
        told = torch.tensor([question + answer[:-1]], device=engine.device)
        places = torch.arange(asked_at, asked_at + told.shape[1], device=engine.device)[None]
        with torch.no_grad():
            hidden = run_base(engine.network, told, places, cache=cache)[0, len(question) - 1 :]
            logits = apply_head(engine.network, hidden).float()
        cache.crop(-told.shape[1])
        found.append(_score(logits, answer, distance))
    return found


def _score(logits: Any, answer: Sequence[int], distance: int) -> Recall:
    import torch
    from torch.nn.functional import cross_entropy

    told = torch.tensor(list(answer), device=logits.device)
    ranks = (logits > logits.gather(1, told[:, None])).sum(1) + 1
    return Recall(distance, float(cross_entropy(logits, told)), int(ranks.max()))
