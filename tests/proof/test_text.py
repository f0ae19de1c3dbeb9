"""How much of a text is run, and in which passes."""

from __future__ import annotations

import pytest

from ropeconv.proof.text import Pass, plan_passes, wanted_tokens


@pytest.mark.parametrize(
    ("trained", "context", "tokens", "wanted"),
    [
        (8192, 32768, None, 9216),
        (2048, 4096, None, 3072),
        (8192, 8192, None, 8192),
        (131072, 524288, None, 16384),
        (8, 16, 5, 5),
    ],
)
def test_default_text_reaches_past_the_trained_length(
    trained: int, context: int, tokens: int | None, wanted: int
) -> None:
    assert wanted_tokens(tokens, trained=trained, context=context) == wanted


def test_longrope_runs_on_both_sides_of_its_switch() -> None:
    ids = range(5000)
    assert plan_passes(ids, switch=None, trained=4096) == [Pass("whole text", 5000, 5000)]
    short, long = plan_passes(ids, switch=4096, trained=4096)
    assert (short.tokens, short.context, long.tokens, long.context) == (4096, 4096, 5000, 5000)
    # llama.cpp would round 4000 up to 4096 and take the long factors for a text that is short to
    # PyTorch
    assert plan_passes(ids, switch=4000, trained=4000)[0].context == 3840
    assert [p.tokens for p in plan_passes(ids[:4096], switch=4096, trained=4096)] == [4096]
