"""Several texts and lengths in one run, and the best row for a stated use."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.errors import ConfigError
from ropeconv.longctx.compare.question import Question
from ropeconv.longctx.compare.run import Comparison
from ropeconv.longctx.compare.uses import describe_best
from tests.command_line import report, run
from tests.longctx import plain
from tests.longctx.comparing import ROPE, ask, ids_of

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def texts(text: Path) -> list[Path]:
    """Two files that differ from the first word on."""
    other = text.with_name("other.txt")
    other.write_text(text.read_text()[5000:])
    return [text, other]


def test_every_text_in_every_length_is_measured_as_by_itself(
    tiny: Path, texts: list[Path], tmp_path: Path
) -> None:
    found = ask(
        tiny, tmp_path / "out", text=texts, apart=True, tokens=None, lengths=[300, 512], passkeys=1
    )
    model = plain.load(tiny, ROPE, context=512, work=tmp_path)
    assert [(part.text, part.length) for part in found.parts] == [
        (path.name, length) for path in texts for length in (300, 512)
    ]
    for part, path in zip(found.parts, [texts[0], texts[0], texts[1], texts[1]], strict=True):
        losses = plain.losses(model, ids_of(tiny, path, part.length))
        _, pi = part.results
        assert pi.variant.label == "pi x2"
        np.testing.assert_allclose(pi.measured.losses, losses, atol=2e-4)
        # prompts hang on the length alone
        assert len(pi.measured.recalls()) == (1 if path == texts[0] else 0)
    assert found.tokens == 512
    alone = ask(tiny, tmp_path / "alone", text=texts[1:])
    assert alone.results[1].whole == found.parts[3].results[1].whole


def test_files_that_are_not_apart_are_one_text(
    tiny: Path, texts: list[Path], tmp_path: Path
) -> None:
    found = ask(tiny, tmp_path / "out", text=texts[::-1])
    assert [part.text for part in found.parts] == ["other.txt + text.txt"]
    losses = plain.losses(plain.load(tiny), ids_of(tiny, texts[1], 512))
    np.testing.assert_allclose(found.results[0].measured.losses, losses, atol=2e-4)


def test_reports_of_several(
    tiny: Path, texts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    common = ["compare", str(tiny), "--methods", "none,pi", "--lengths", "300,512", "--apart"]
    common += [part for path in texts for part in ("--text", str(path))]
    common += ["--passkeys", "1", "--retrieval", "passkey,multi-value", "-o", str(out)]
    common += ["--use-length", "512", "--use-price", "9"]
    facts = report(common, capsys)
    assert facts == json.loads((out / "report.json").read_text())
    assert [(row["text"], row["length"]) for row in facts["rows"]][::2] == [
        (path.name, length) for path in texts for length in (300, 512)
    ]
    assert [len(row["retrieval"].get("multi-value", [])) for row in facts["rows"]] == [1] * 4 + [
        0
    ] * 4
    lines = list(csv.DictReader((out / "report.csv").read_text().splitlines()))
    assert {(line["text"], line["length"]) for line in lines} == {
        (path.name, length) for path in texts for length in ("300", "512")
    }
    page = (out / "report.html").read_text()
    assert page.count("<h2>") == 4
    assert page.count("<svg") == 4 + 2 + 1  # losses, pass keys of the first text, the spectrum
    said, _ = run([*common, "--quiet"], capsys)
    assert said.count("perplexity by position") == 4
    assert "300 tokens of other.txt" in said
    assert said.count("keys retrieved") == 2  # of the first text
    assert "multi-value" in said
    assert "…" not in said  # no cell is cut off
    best = facts["best"]["best"]["label"]
    assert f"best for texts of 512 tokens that cost at most 9 nats below L: {best} (" in said


def differences(found: Comparison, name: str, start: int, stop: int) -> float:
    """Mean loss of a row less the unscaled model's, of all texts, by plain numpy."""
    rows = {r.variant.label: [] for r in found.results}
    for result in found.results:
        rows[result.variant.label].append(result.measured.losses[max(start - 1, 0) : stop - 1])
    return float(np.concatenate(rows[name]).mean() - np.concatenate(rows["none"]).mean())


def test_the_best_row_is_the_lowest_loss_at_the_price(
    tiny: Path, texts: list[Path], tmp_path: Path
) -> None:
    choices: dict[str, Any] = {"methods": ["none", "pi", "ntk", "yarn"], "text": texts}
    choices |= {"apart": True, "use_length": 512}
    found = ask(tiny, tmp_path / "out", **choices)
    labels = ["none", "pi x2", "ntk x2", "yarn x2"]
    long = {name: differences(found, name, 256, 512) for name in labels}
    short = {name: differences(found, name, 0, 256) for name in labels}
    assert found.best is not None
    assert found.best.price is None
    assert found.best.best.label == min(long, key=lambda name: long[name])
    assert found.best.best.price == pytest.approx(short[found.best.best.label], abs=1e-6)
    for one in found.best.as_good:
        assert one.behind is not None
        assert one.behind.mean == pytest.approx(
            long[one.label] - long[found.best.best.label], abs=1e-6
        )
    prices = sorted(short.values())
    limit = max(0.0, (prices[1] + prices[2]) / 2)  # some rows are too dear
    within = [name for name in labels if short[name] <= limit]
    assert 0 < len(within) < 4
    priced = ask(tiny, tmp_path / "out", **choices, use_price=limit).best
    assert priced is not None
    assert priced.best.label == min(within, key=lambda name: long[name])
    assert {one.label for one in priced.too_dear} == set(labels) - set(within)
    assert "too dear" in describe_best(priced)


def test_a_use_below_the_trained_length_goes_by_its_own_tokens(
    tiny: Path, texts: list[Path], tmp_path: Path
) -> None:
    found = ask(tiny, tmp_path / "out", text=texts[:1], use_length=200)
    assert found.best is not None
    assert (found.best.start, found.best.length) == (0, 200)
    by_label = {r.variant.label: r.measured.losses[:199].mean() for r in found.results}
    assert found.best.best.loss == pytest.approx(min(by_label.values()), abs=1e-6)


WRONG = {
    "two lengths": ({"lengths": [300]}, "--lengths and --tokens: give one of them"),
    "a short one": ({"lengths": [20, 8], "tokens": None}, "--lengths 8: give 16 or more"),
    "past the text": ({"use_length": 513}, "--use-length 513: the text is measured over 512"),
    "price alone": ({"use_price": 0.1}, "--use-price belongs to --use-length; give both"),
    "no baseline": (
        {"methods": ["pi"], "use_length": 512, "use_price": 0.1},
        "the price is told against the unscaled model; add none to --methods",
    ),
    "a negative price": (
        {"use_length": 512, "use_price": -1.0},
        "--use-price -1.0: give 0 or more",
    ),
    "an unknown task": ({"retrieval": ["passkeys"]}, "no retrieval task 'passkeys'; near: passkey"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(case: str, tiny: Path, texts: list[Path], tmp_path: Path) -> None:
    choices, words = WRONG[case]
    with pytest.raises(ConfigError, match=words):
        ask(tiny, tmp_path / "out", **({"text": texts} | choices))
    assert not (tmp_path / "out").exists()


def test_two_texts_of_one_name_are_refused(tiny: Path, texts: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(texts[1].read_text())
    with pytest.raises(ConfigError, match=r"text\.txt is there twice; give it once, or rename"):
        ask(tiny, tmp_path / "out", text=[texts[0], tmp_path / "text.txt"], apart=True)


def test_the_default_question_is_what_it_was() -> None:
    assert (Question().retrieval, Question().passkeys, Question().apart) == (("passkey",), 8, False)
