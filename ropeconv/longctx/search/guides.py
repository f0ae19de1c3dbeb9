"""What a search goes by: the loss on prompts whose positions are spread over the target context.

needle: LongRoPE2's guide, the loss of hidden keys alone (Shang et al., "LongRoPE2", 2025).
perplexity: LongRoPE's, the loss of a text (Ding et al., "LongRoPE", 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropeconv.errors import ConfigError
from ropeconv.longctx.measuring.engine import Engine, memory_explained
from ropeconv.longctx.measuring.passkeys import (
    KeyPrompt,
    make_prompt,
    recall_keys,
    spread_prompt,
)
from ropeconv.longctx.measuring.texts import encode, first_tokens, guide_text
from ropeconv.longctx.search.plan import Plan
from ropeconv.proof.text import read_text

KEYS = 8
CHUNK = 256  # tokens between two jumps of a text's positions


@dataclass(frozen=True)
class SpreadText:
    """A text whose positions jump.

    The first `skip` tokens have too little before them to be scored.
    """

    ids: list[int]
    positions: list[int]
    skip: int


@dataclass(frozen=True)
class Guide:
    """Prompts, each of which gives a candidate one loss in nats."""

    prompts: Sequence[KeyPrompt | SpreadText]

    def loss(self, engine: Engine, number: int) -> float:
        """Of prompt `number` under the rotary embedding that the engine uses."""
        prompt = self.prompts[number]
        with memory_explained("a guiding prompt", "take fewer --guide-tokens"):
            if isinstance(prompt, KeyPrompt):
                return float(np.mean([recall.loss for recall in recall_keys(engine, prompt)]))
            losses = engine.losses(prompt.ids, positions=prompt.positions)
            return float(losses[prompt.skip :].mean())


def make_guide(plan: Plan, tokenizer: Any, *, context: int) -> Guide:
    """The plan's prompts, spread over `context` positions, or as long as that when they are full.

    Raises ConfigError for a length that does not fit, CheckpointError for a text that is too short.
    """
    length = context if plan.full else plan.tokens
    if not 2 * CHUNK <= length <= context:
        raise ConfigError(
            f"--guide-tokens {length}: give {2 * CHUNK} to {context}, the target context"
        )
    return Guide(GUIDES[plan.guide](plan, tokenizer, length, context))


def _needles(plan: Plan, tokenizer: Any, length: int, context: int) -> list[KeyPrompt]:
    seeds = range(plan.seed, plan.seed + plan.prompts)
    found = [_key_prompt(tokenizer, length, seed) for seed in seeds]
    return found if length == context else [spread_prompt(prompt, context) for prompt in found]


def _key_prompt(tokenizer: Any, length: int, seed: int) -> KeyPrompt:
    """A prompt with KEYS keys, or half as many until they fit."""
    keys = KEYS
    advice = "give more --guide-tokens"
    while True:
        try:
            return make_prompt(tokenizer, tokens=length, keys=keys, seed=seed, advice=advice)
        except ConfigError:
            if keys == 1:
                raise
            keys //= 2


def _texts(plan: Plan, tokenizer: Any, length: int, context: int) -> list[SpreadText]:
    """Pieces of one text, one after the other."""
    text = guide_text() if plan.text is None else read_text(plan.text)
    option = "--guide-tokens or --guide-prompts"
    ids = first_tokens(encode(tokenizer, text), length * plan.prompts, option=option)
    positions = spread_positions(length, context)
    starts = range(0, len(ids), length)
    return [SpreadText(ids[start : start + length], positions, CHUNK) for start in starts]


Prompts = Callable[[Plan, Any, int, int], Sequence[KeyPrompt | SpreadText]]
"""(plan, tokenizer, tokens of a prompt, tokens of the target context) -> prompts."""
GUIDES: Mapping[str, Prompts] = {"needle": _needles, "perplexity": _texts}


def spread_positions(length: int, context: int) -> list[int]:
    """`length` positions that jump after every CHUNK of them so that the last is context - 1."""
    jumps = (length - 1) // CHUNK
    step = (context - length) // jumps
    places = np.arange(length)
    shifted = places + places // CHUNK * step
    shifted[places // CHUNK == jumps] += context - 1 - shifted[-1]
    return [int(i) for i in shifted]
