"""Pass keys: the cached answer is the uncached one, `retrieved` is what generation does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ropeconv.errors import ConfigError
from ropeconv.longctx.measuring.engine import Engine
from ropeconv.longctx.measuring.passkeys import (
    KeyPrompt,
    make_prompt,
    recall_keys,
    spread_prompt,
)
from ropeconv.prepare import prepare
from tests.longctx import plain


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Engine:
    return Engine(prepare(str(tiny), None))


@pytest.fixture(scope="module")
def prompt(engine: Engine) -> KeyPrompt:
    return make_prompt(engine.tokenizer, tokens=900, keys=3, seed=1, advice="")


def test_the_prompt_holds_its_keys_where_it_says(engine: Engine, prompt: KeyPrompt) -> None:
    longest = max(len(question) + len(answer) for question, answer in prompt.asked)
    assert len(prompt.ids) + longest == 900
    for (question, answer), distance in zip(prompt.asked, prompt.distances, strict=True):
        key, asked = engine.tokenizer.decode(answer).strip(), engine.tokenizer.decode(question)
        name = asked.split()[-2]
        after = engine.tokenizer.decode(prompt.ids[len(prompt.ids) - distance :])
        assert key.isdigit()
        assert after.startswith(f"\nThe pass key of {name} is {key}.")
    gaps = -np.diff(prompt.distances)
    assert gaps.max() - gaps.min() <= 8  # even, but for the lengths of the keys


def test_losses_and_ranks_are_those_of_one_uncached_pass(
    engine: Engine, prompt: KeyPrompt, tiny: Path
) -> None:
    import torch

    model = plain.load(tiny)
    for recall, (question, answer) in zip(recall_keys(engine, prompt), prompt.asked, strict=True):
        ids = prompt.ids + question + answer
        expected = plain.losses(model, ids)[-len(answer) :]
        assert recall.loss == pytest.approx(expected.mean(), abs=2e-4)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -len(answer) - 1 : -1]
        ranks = [
            int((row > row[token]).sum()) + 1 for row, token in zip(logits, answer, strict=True)
        ]
        assert recall.rank == max(ranks)


def test_retrieved_is_what_greedy_generation_gives(
    engine: Engine, prompt: KeyPrompt, tiny: Path
) -> None:
    import torch

    model = plain.load(tiny)
    question, _ = prompt.asked[0]
    start = torch.tensor([prompt.ids + question])
    out = model.generate(
        start,
        attention_mask=torch.ones_like(start),
        max_new_tokens=5,
        do_sample=False,
        eos_token_id=-1,
    )
    said = out[0, start.shape[1] :].tolist()
    assert recall_keys(engine, replace(prompt, asked=[(question, said)], distances=[1]))[
        0
    ].retrieved
    other = [*said[:-1], (said[-1] + 1) % 384]
    assert not recall_keys(engine, replace(prompt, asked=[(question, other)], distances=[1]))[
        0
    ].retrieved


def test_a_spread_prompt_reaches_the_context(engine: Engine, prompt: KeyPrompt, tiny: Path) -> None:
    spread = spread_prompt(prompt, 4000)
    longest = max(len(question) + len(answer) for question, answer in prompt.asked)
    assert np.all(np.diff(spread.positions) >= 1)
    assert 4000 - 3 <= spread.positions[-1] + longest <= 4000
    assert (
        spread.distances[0]
        == spread.positions[-1] - spread.positions[len(prompt.ids) - prompt.distances[0]]
    )
    question, answer = spread.asked[2]
    told = len(question) + len(answer)
    positions = [*spread.positions[:-1], *range(spread.positions[-1], spread.positions[-1] + told)]
    expected = plain.losses(plain.load(tiny), prompt.ids + question + answer, positions)[
        -len(answer) :
    ]
    assert recall_keys(engine, spread)[2].loss == pytest.approx(expected.mean(), abs=2e-4)


def test_too_many_keys_are_refused(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="100 tokens are too few for 8 pass keys; give more"):
        make_prompt(engine.tokenizer, tokens=100, keys=8, seed=0, advice="give more")
    with pytest.raises(ConfigError, match="--passkeys 99"):
        make_prompt(engine.tokenizer, tokens=100, keys=99, seed=0, advice="")
