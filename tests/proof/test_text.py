"""How much of a text is run, and in which passes."""

from __future__ import annotations

import pytest

from ropeconv.proof.text import Pass, default_text, leading_ids, plan_passes, wanted_tokens
from tests.checkpoints import tokenizer_json


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


# a row of spaces is one token; a letter of four bytes is four
TEXTS = {
    "prose": default_text(),
    "few letters a token": "\N{OLD ITALIC LETTER A}" * 40_000,
    "many letters a token": ("word" + " " * 400) * 1000,
    "short": "three words only",
}


@pytest.mark.parametrize("wanted", [2, 300, 4000])
@pytest.mark.parametrize("name", TEXTS)
def test_the_first_ids_are_those_of_the_whole_text(name: str, wanted: int) -> None:
    from tokenizers import Tokenizer

    tokenizer, read = Tokenizer.from_str(tokenizer_json()), list[int]()

    def tokenize(text: str) -> list[int]:
        read.append(len(text))
        return list(tokenizer.encode(text).ids)

    text = TEXTS[name]
    assert leading_ids(tokenize, text, wanted) == tokenizer.encode(text).ids[:wanted]
    if name == "prose":
        assert sum(read) < len(text) // 4
