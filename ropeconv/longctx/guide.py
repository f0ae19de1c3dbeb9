"""What a search goes by: the loss on short prompts whose positions are spread over the target context, or on full-length ones.

needle: LongRoPE2's guide, the loss of hidden keys alone (Shang et al., "LongRoPE2", 2025). perplexity: LongRoPE's, the loss
of a text (Ding et al., "LongRoPE", 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropeconv.errors import ConfigError
from ropeconv.longctx.engine import Engine, memory_explained
from ropeconv.longctx.passkey import Prompt, ask, make_prompt, spread_prompt
from ropeconv.longctx.text import encode, first_tokens

GUIDES = ("needle", "perplexity")
KEYS = 8
CHUNK = 256  # tokens between two jumps of a text's positions


@dataclass(frozen=True)
class Piece:
    """A text whose positions jump; the first `skip` tokens have too little before them to be scored."""

    ids: list[int]
    positions: list[int]
    skip: int


@dataclass(frozen=True)
class Guide:
    """Prompts, each of which gives a candidate one loss in nats."""

    prompts: Sequence[Prompt | Piece]

    def loss(self, engine: Engine, number: int) -> float:
        """Of prompt `number` under the rotary embedding that the engine uses."""
        prompt = self.prompts[number]
        with memory_explained("a guiding prompt", "take fewer --guide-tokens"):
            if isinstance(prompt, Prompt):
                return float(np.mean([recall.loss for recall in ask(engine, prompt)]))
            return float(engine.losses(prompt.ids, positions=prompt.positions)[prompt.skip :].mean())


def make_guide(kind: str, tokenizer: Any, text: str, *, prompts: int, tokens: int, context: int, full: bool, seed: int) -> Guide:
    """Prompts of `tokens` tokens spread over `context` positions, or as long as that when `full`.

    text: where perplexity's pieces come from. ConfigError for a guide that is none or a length that does not fit.
    """
    length = context if full else tokens
    if not 2 * CHUNK <= length <= context:
        raise ConfigError(f"--guide-tokens {length}: give {2 * CHUNK} to {context}, the target context")
    if kind == "needle":
        return Guide([_needles(tokenizer, length, context, seed + number) for number in range(prompts)])
    if kind != "perplexity":
        raise ConfigError(f"--guide {kind!r}: give one of {', '.join(GUIDES)}")
    ids = first_tokens(encode(tokenizer, text), length * prompts, option="--guide-tokens or --guide-prompts")
    positions = spread_positions(length, context)
    return Guide([Piece(ids[length * n : length * (n + 1)], positions, CHUNK) for n in range(prompts)])


def _needles(tokenizer: Any, length: int, context: int, seed: int) -> Prompt:
    """A prompt with KEYS keys, or half as many until they fit."""
    keys = KEYS
    while True:
        try:
            found = make_prompt(tokenizer, tokens=length, keys=keys, seed=seed, advice="give more --guide-tokens")
        except ConfigError:
            if keys == 1:
                raise
            keys //= 2
        else:
            return found if length == context else spread_prompt(found, context)


def spread_positions(length: int, context: int) -> list[int]:
    """`length` positions that jump after every CHUNK of them so that the last is context - 1."""
    jumps = (length - 1) // CHUNK
    step = (context - length) // jumps
    places = np.arange(length)
    shifted = places + places // CHUNK * step
    shifted[places // CHUNK == jumps] += context - 1 - shifted[-1]
    return [int(i) for i in shifted]
