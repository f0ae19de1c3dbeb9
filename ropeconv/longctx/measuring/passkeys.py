"""Passkey retrieval by distance: keys hidden in a long text, each asked for at its end.

After Mohtashami and Jaggi, "Landmark Attention", 2023, with several keys in one text, so that one
long pass gives every distance. Keys are scored with the answer given digit by digit: loss and rank
of each. A key whose every digit ranks first is one that greedy generation gives, token for token,
so that generation needs no run of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropeconv.artefact import Branches
from ropeconv.errors import ConfigError
from ropeconv.longctx.measuring.engine import Engine, run_base
from ropeconv.longctx.measuring.head import apply_head
from ropeconv.longctx.measuring.texts import encode, encode_plain
from ropeconv.target import Progress

PASSKEY = "passkey"
NAMES = (
    "amber", "basil", "cedar", "dune", "ember", "fjord", "grove", "heron",
    "iris", "jade", "kelp", "lotus", "maple", "nettle", "opal", "pearl",
)  # fmt: skip
OPENING = "Several pass keys are written somewhere in these notes. Find and keep them.\n"
FILLER = (
    "The mill stands by the water. Boats come in the morning and leave before noon. "
    "Nothing else happens here. "
)
NEEDLE = "\nThe pass key of {name} is {key}. Keep it: the pass key of {name} is {key}.\n"
QUESTION = "\nWhat is the pass key of {name}? The pass key of {name} is"

Asked = tuple[list[int], list[int]]
"""The ids of a question, and those of its answer."""


@dataclass(frozen=True)
class KeyPrompt:
    """ids: the text with its keys. asked: one entry a key. distances: positions, key to question.

    positions: of the ids, and of the first token of a question as one more entry.
    """

    ids: list[int]
    asked: list[Asked]
    distances: list[int]
    positions: list[int]

    @property
    def longest(self) -> int:
        """Tokens of the longest question with its answer."""
        return max(len(question) + len(answer) for question, answer in self.asked)


@dataclass(frozen=True)
class Recall:
    """One key of one prompt.

    distance: tokens; loss: mean over the answer's tokens, nats; rank: the worst, 1 is first.
    """

    distance: int
    loss: float
    rank: int

    @property
    def retrieved(self) -> bool:
        """Whether greedy generation gives the key."""
        return self.rank == 1


def make_prompt(tokenizer: Any, *, tokens: int, keys: int, seed: int, advice: str) -> KeyPrompt:
    """A prompt whose text and one question fill `tokens` tokens, with `keys` at even distances.

    ConfigError, with `advice`, when the keys do not fit.
    """
    check_keys(keys)
    rng = np.random.default_rng([seed, tokens])
    hidden = draw_keys(rng, keys)
    filler = encode_plain(tokenizer, FILLER)
    return hide_needles(
        tokenizer,
        [NEEDLE.format(name=name, key=key) for name, key in hidden],
        [ask(tokenizer, QUESTION.format(name=name), key) for name, key in hidden],
        fill=lambda count: repeat(filler, count),
        tokens=tokens,
        advice=advice,
    )


def check_keys(keys: int) -> None:
    """ConfigError where there are not so many names."""
    if not 1 <= keys <= len(NAMES):
        raise ConfigError(f"--passkeys {keys}: give 0 to {len(NAMES)}")


def draw_keys(rng: np.random.Generator, keys: int) -> list[tuple[str, str]]:
    """Names and their keys, five digits each."""
    names = [NAMES[i] for i in rng.permutation(len(NAMES))[:keys]]
    return [(name, draw_key(rng)) for name in names]


def draw_key(rng: np.random.Generator) -> str:
    """Five digits."""
    return str(rng.integers(10_000, 100_000))


def hide_needles(
    tokenizer: Any,
    needles: Sequence[str],
    asked: Sequence[Asked],
    *,
    fill: Callable[[int], list[int]],
    tokens: int,
    advice: str,
) -> KeyPrompt:
    """A prompt that fills `tokens` tokens with its longest question, the needles at even distances.

    asked: one a needle. fill: (count) -> so many ids to lay between them. ConfigError, with
    `advice`, when the needles do not fit.
    """
    told = [encode_plain(tokenizer, needle) for needle in needles]
    opening = encode(tokenizer, OPENING)
    room = tokens - max(len(question) + len(answer) for question, answer in asked)
    room -= len(opening) + sum(map(len, told))
    if room < len(told) * len(encode_plain(tokenizer, FILLER)):
        raise ConfigError(f"{tokens} tokens are too few for {len(told)} pass keys; {advice}")
    ids, starts = _hide(told, opening=opening, fill=fill, room=room)
    distances = [len(ids) - start for start in starts]
    return KeyPrompt(ids, list(asked), distances, list(range(len(ids) + 1)))


def _hide(
    needles: Sequence[list[int]],
    *,
    opening: list[int],
    fill: Callable[[int], list[int]],
    room: int,
) -> tuple[list[int], list[int]]:
    """A text whose `room` tokens of filler are cut evenly by the needles, and where they start."""
    ids = list(opening)
    starts = []
    told = len(opening)  # tokens that are no filler
    for number, needle in enumerate(needles):
        ids += fill(room * number // len(needles) - (len(ids) - told))
        starts.append(len(ids))
        ids += needle
        told += len(needle)
    return ids + fill(room - (len(ids) - told)), starts


def repeat(filler: list[int], count: int) -> list[int]:
    """`count` ids of `filler`, over and over."""
    return (filler * (count // len(filler) + 1))[:count]


def spread_prompt(prompt: KeyPrompt, context: int) -> KeyPrompt:
    """The prompt with positions that jump before every key, so that its questions end at `context`.

    Attention sees only how far apart two tokens are: a short text exercises far distances at the
    cost of its own length. It does not have the many tokens that a text of that length would also
    have to look past.
    """
    starts = [len(prompt.ids) - distance for distance in prompt.distances]
    jump = (context - prompt.longest - len(prompt.ids)) // len(starts)
    places = np.arange(len(prompt.ids) + 1)
    jumps = np.searchsorted(starts[1:], places, side="right")
    jumps[-1] = len(starts)
    positions = [int(i) for i in places + jumps * jump]
    distances = [positions[-1] - positions[start] for start in starts]
    return KeyPrompt(prompt.ids, prompt.asked, distances, positions)


def ask(tokenizer: Any, question: str, key: str) -> Asked:
    """The question's ids, and those of the answer as they follow it in one text."""
    alone = encode_plain(tokenizer, question)
    whole = encode_plain(tokenizer, f"{question} {key}")
    pairs = enumerate(zip(alone, whole, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), len(alone))
    return whole[:same], whole[same:]


def recall_keys(
    engine: Engine, prompt: KeyPrompt, progress: Progress | None = None
) -> list[Recall]:
    """Every key of the prompt: one pass over its text, then each question from the same cache."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache()  # without the config's windows, to be cut back; the masks keep them
    ids = torch.tensor([prompt.ids], device=engine.device)
    places = torch.tensor([prompt.positions[:-1]], device=engine.device)
    engine.hidden(ids, places, progress=progress, cache=cache)
    pairs = zip(prompt.asked, prompt.distances, strict=True)
    return [_ask(engine, asked, cache, prompt.positions[-1], far) for asked, far in pairs]


def _ask(engine: Engine, asked: Asked, cache: Any, position: int, distance: int) -> Recall:
    """One question after the cached text, from `position` on; the cache is left as it was."""
    import torch

    question, answer = asked
    told = torch.tensor([question + answer[:-1]], device=engine.device)
    places = torch.arange(position, position + told.shape[1], device=engine.device)[None]
    with torch.no_grad():
        hidden = run_base(engine.network, told, places, cache=cache)[0, len(question) - 1 :]
        logits = apply_head(engine.network, hidden).float()
    cache.crop(-told.shape[1])
    return _score(logits, answer, distance)


def recall_in_file(
    branches: Branches, prompt: KeyPrompt, progress: Progress | None = None
) -> list[Recall]:
    """Every key of the prompt in a file's own runtime, which reads the text once."""
    import torch

    parts = [[*question, *answer[:-1]] for question, answer in prompt.asked]
    found: list[Recall] = []
    blocks = branches(prompt.ids, parts, len(prompt.ids) + prompt.longest)
    rows = zip(prompt.asked, prompt.distances, blocks, strict=True)
    for (question, answer), distance, block in rows:
        logits = torch.from_numpy(block[len(question) - 1 :])
        found.append(_score(logits, answer, distance))
        if progress is not None:
            progress(len(found), len(parts))
    return found


def _score(logits: Any, answer: Sequence[int], distance: int) -> Recall:
    import torch
    from torch.nn.functional import cross_entropy

    told = torch.tensor(list(answer), device=logits.device)
    ranks = (logits > logits.gather(1, told[:, None])).sum(1) + 1
    return Recall(distance, float(cross_entropy(logits, told)), int(ranks.max()))
