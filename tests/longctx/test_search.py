"""Searches: the space, the guides, both procedures, resumed runs, an honest verdict."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ropeconv.cli import main
from ropeconv.errors import CheckpointError, ConfigError, OutputError, RopeconvError
from ropeconv.kit.options import declared
from ropeconv.longctx.measuring.engine import Engine
from ropeconv.longctx.measuring.variants import unscaled_model
from ropeconv.longctx.search.candidates import (
    Space,
    apply_candidate,
    make_candidate,
    rank_correlation,
    read_candidate,
    seed_variants,
)
from ropeconv.longctx.search.guides import CHUNK, GUIDES, Guide, make_guide
from ropeconv.longctx.search.plan import Plan
from ropeconv.longctx.search.procedures import PLAIN_TOKENS, PROCEDURES, cross, mutate
from ropeconv.longctx.search.report import Searched, verdict
from ropeconv.longctx.search.run import search
from ropeconv.longctx.search.scores import order
from tests.longctx import plain
from tests.longctx.two_processes import launch_two

QUICK = Plan(factor=4.0, evaluations=40, prompts=2, tokens=600, held_out_tokens=600)


def test_the_space_is_monotone_and_bounded() -> None:
    space, rng = Space(pairs=32, factor=4.0), np.random.default_rng(0)
    for _ in range(200):
        found = space.decode(rng.normal(0.5, 0.6, space.size))
        assert (np.diff(found.rho) >= 0).all()
        assert found.rho[0] >= 1.0
        assert found.rho[-1] <= 1.25 * 4 + 1e-4
        assert 1.0 <= found.magnitude <= 1.0 + 0.2 * np.log(4) + 1e-4
        again = space.decode(space.encode(found))
        np.testing.assert_allclose(
            again.rho, found.rho, rtol=0.2
        )  # the curve is piecewise between the knots


def test_seeds_are_the_methods_themselves(tiny: Path, tmp_path: Path) -> None:
    """A seed's candidate turns as transformers turns under the method's own config."""
    model = unscaled_model(str(tiny))
    seeds = {seed.method: seed for seed in seed_variants(model, 4.0)}
    assert set(seeds) == {"pi", "ntk", "ntk-critical", "ntk-parts", "yarn", "llama3"}
    yarn = {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 256,
        "rope_theta": 20000.0,
    }
    rotary = plain.load(tiny, yarn, context=1024, work=tmp_path).model.rotary_emb
    assert seeds["yarn"].model is not None
    candidate = read_candidate(seeds["yarn"].model)
    base = 20000.0 ** (-np.arange(0, 16, 2) / 16)
    np.testing.assert_allclose(base / np.array(candidate.rho), rotary.inv_freq, rtol=1e-4)
    assert candidate.magnitude == pytest.approx(rotary.attention_scaling, abs=1e-4)


@pytest.mark.parametrize("kind", ["needle", "perplexity"])
def test_a_guide_loss_is_that_of_transformers(
    kind: str, tiny: Path, text: Path, tmp_path: Path
) -> None:
    model = unscaled_model(str(tiny))
    engine = Engine(model)
    guide = make_guide(replace(QUICK, guide=kind, text=text), engine.tokenizer, context=1024)
    candidate = make_candidate(np.linspace(1.0, 4.5, 8), 1.1)
    engine.use(apply_candidate(candidate, model, 4.0))
    rope = {
        "rope_type": "longrope",
        "short_factor": list(candidate.rho),
        "long_factor": list(candidate.rho),
    }
    rope |= {
        "factor": 4.0,
        "attention_factor": 1.1,
        "original_max_position_embeddings": 256,
        "rope_theta": 20000.0,
    }
    other = plain.load(tiny, rope, context=1024, work=tmp_path)
    prompt: Any = guide.prompts[1]
    if kind == "perplexity":
        assert prompt.positions[-1] == 1023
        assert (np.diff(prompt.positions) > 1).sum() == (600 - 1) // CHUNK
        expected = plain.losses(other, prompt.ids, prompt.positions)[CHUNK:].mean()
    else:
        losses = []
        for question, answer in prompt.asked:
            told = [*prompt.ids, *question, *answer]
            end = prompt.positions[-1] + len(told) - len(prompt.ids)
            places = [*prompt.positions, *range(prompt.positions[-1] + 1, end)]
            losses.append(plain.losses(other, told, places)[-len(answer) :].mean())
        expected = np.mean(losses)
    assert guide.loss(engine, 1) == pytest.approx(expected, abs=3e-4)
    engine.use(model)
    assert guide.loss(engine, 1) != pytest.approx(expected, abs=3e-3)


def test_guides_that_do_not_fit(tiny: Path, text: Path) -> None:
    tokenizer = Engine(unscaled_model(str(tiny))).tokenizer

    def make(**choices: Any) -> Guide:
        return make_guide(replace(QUICK, text=text, **choices), tokenizer, context=1024)

    with pytest.raises(ConfigError, match="--guide-tokens 5000: give 512 to 1024"):
        make(tokens=5000)
    short = "600000 are needed; give a longer text or fewer --guide-tokens"
    with pytest.raises(CheckpointError, match=short):
        make(guide="perplexity", prompts=1000)
    full: Any = make(full=True).prompts[0]
    assert full.positions == list(range(len(full.positions)))


def test_every_word_of_a_plan_has_its_meaning() -> None:
    words = {entry.name: entry.option.choices for entry in declared(Plan)}
    assert words["guide"] is not None
    assert words["guide"].keys() == GUIDES.keys()
    assert words["procedure"] is not None
    assert words["procedure"].keys() == PROCEDURES.keys()


def test_a_search_on_few_numbers_ends_by_itself() -> None:
    assert Plan(4.0).with_budget().minutes == 15
    assert Plan(4.0, evaluations=40).with_budget().minutes is None
    assert Plan(4.0, procedure="longrope").with_budget().minutes is None


def test_children_stay_in_the_space() -> None:
    rng = np.random.default_rng(1)
    first = make_candidate(np.linspace(1, 4, 16), 1.0)
    second = make_candidate(np.full(16, 4.0), 1.0)
    changed = 0
    for _ in range(200):
        child = mutate(first, 4.0, rng)
        assert (np.diff(child.rho) >= 0).all()
        assert min(child.rho) >= 1.0
        assert max(child.rho) <= 5.0 + 1e-9
        assert child.plain_tokens in PLAIN_TOKENS
        changed += sum(a != b for a, b in zip(child.rho, first.rho, strict=True))
        mixed = cross(first, second, rng)
        assert (np.diff(mixed.rho) >= 0).all()
        assert all(
            value in {a, b} for value, a, b in zip(mixed.rho, first.rho, second.rho, strict=True)
        )
    assert 0.2 < changed / (200 * 16) < 0.4  # three in ten divisors are drawn anew


def test_ranks() -> None:
    assert order([(3.0, 1), (2.0, 4), (1.0, 4), (0.5, 2)]) == [3, 1, 0, 2]
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    assert np.isnan(rank_correlation([1, 2], [1, 2]))


def run(tiny: Path, out: Path, plan: Plan = QUICK, **options: Any) -> Searched:
    found = search(tiny, out, plan=plan, **options)
    assert found is not None
    return found


def test_what_is_found_scores_no_worse_than_its_seeds_and_is_read_by_others(
    tiny: Path, tmp_path: Path
) -> None:
    out = tmp_path / "factors.json"
    found = run(tiny, out)
    assert found.generations >= 1
    assert found.scores["searched"] == min(found.scores.values())
    facts = json.loads(out.read_text())
    assert facts["search"]["verdict"] == verdict(found)
    assert [path.name for path in tmp_path.iterdir()] == ["factors.json"]
    with pytest.raises(SystemExit) as done:
        main(
            [
                "gguf",
                str(tiny),
                "--rope-parameters",
                str(out),
                "--type",
                "F32",
                "-o",
                str(tmp_path / "x4.gguf"),
                "--quiet",
            ]
        )
    assert done.value.code == 0
    with pytest.raises(SystemExit) as done:
        main(["verify", str(tmp_path / "x4.gguf"), "--tokens", "600", "--quiet"])
    assert done.value.code == 0


def test_the_verdict_is_honest(tiny: Path, tmp_path: Path) -> None:
    """A result that is a seed in other words cannot beat it; one that is worse is called worse."""
    found = run(tiny, tmp_path / "factors.json", replace(QUICK, evaluations=1))
    assert found.generations == 0
    assert found.best_seed in found.scores
    assert "did not beat its best seed" in verdict(found)
    assert found.difference is not None
    worse = replace(found, difference=replace(found.difference, mean=0.5, error=0.01))
    assert verdict(worse).endswith("by 0.500 ± 0.010 nats on held-out text; take that")
    better = replace(found, difference=replace(found.difference, mean=-0.5, error=0.01))
    assert "beat their best seed" in verdict(better)


def test_the_published_procedure(tiny: Path, tmp_path: Path) -> None:
    plan = replace(
        QUICK, procedure="longrope", guide="perplexity", evaluations=130, held_out_tokens=0
    )
    found = run(tiny, tmp_path / "factors.json", plan)
    assert found.losses >= 130  # 64 candidates on 2 prompts, then children
    assert found.best.plain_tokens == 0
    assert found.held is None
    assert "no held-out check was run" in verdict(found)


def test_a_changed_text_is_another_search(tiny: Path, text: Path, tmp_path: Path) -> None:
    """Its losses must not be found again under the same options."""
    own, out = tmp_path / "own.txt", tmp_path / "factors.json"
    own.write_text(text.read_text())
    plan = replace(QUICK, guide="perplexity", text=own, held_out=[tmp_path / "nowhere.txt"])
    with pytest.raises(CheckpointError, match=r"nowhere\.txt"):
        run(tiny, out, plan)  # stops before the check, its losses are kept
    own.write_text(text.read_text()[100:])
    with pytest.raises(OutputError, match="holds a search with other options"):
        run(tiny, out, plan, resume=True)


def test_a_model_that_gives_no_numbers_ends_the_search(tiny: Path, tmp_path: Path) -> None:
    """Not a winner by comparison with what is no number."""
    broken = shutil.copytree(tiny, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = np.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        RopeconvError,
        match="the guide's loss is nan: the model gives no numbers at 4 times its context",
    ):
        run(broken, tmp_path / "factors.json")


ARGUMENTS = ["--guide-prompts", "2", "--guide-tokens", "600", "--held-out-tokens", "600", "--quiet"]


@pytest.mark.torch
def test_a_resumed_search_goes_the_same_way(tiny: Path, tmp_path: Path) -> None:
    straight = run(tiny, tmp_path / "straight.json")
    out, history = tmp_path / "cut.json", tmp_path / "cut.json.history"
    process = start(
        "search", str(tiny), "--factor", "4", "--evaluations", "40", *ARGUMENTS, "-o", str(out)
    )
    deadline = time.monotonic() + 120
    while (
        not history.exists() or len(history.read_text().splitlines()) < 8
    ) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 2
    assert not out.exists()
    history.write_text(history.read_text() + '{"key": "ab')  # a kill in the middle of a line
    with pytest.raises(OutputError, match="holds an interrupted search; go on with --resume"):
        run(tiny, out)
    with pytest.raises(OutputError, match="holds a search with other options"):
        run(tiny, out, replace(QUICK, seed=7), resume=True)
    resumed = run(tiny, out, resume=True)
    assert resumed.best == straight.best
    assert resumed.scores == pytest.approx(straight.scores, abs=1e-6)


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ropeconv", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.torch
def test_two_processes_search_as_one(tiny: Path, tmp_path: Path) -> None:
    alone = run(tiny, tmp_path / "alone.json")
    common = [
        "search",
        str(tiny),
        "--factor",
        "4",
        "--evaluations",
        "40",
        *ARGUMENTS,
        "-o",
        str(tmp_path / "two.json"),
    ]
    launch_two(tmp_path / "ranks", *common)
    facts = json.loads((tmp_path / "two.json").read_text())
    for name, loss in alone.scores.items():
        if name != "searched":
            assert facts["search"]["guide_loss"][name] == pytest.approx(loss, abs=1e-4)


WRONG = {
    "a factor of 1": (replace(QUICK, factor=1.0), ConfigError, "--factor 1"),
    "no minutes": (replace(QUICK, minutes=0.0), ConfigError, "--minutes 0: give a number above 0"),
    "an unknown procedure": (
        replace(QUICK, procedure="random"),
        ConfigError,
        "--procedure 'random'",
    ),
    "a long prompt": (replace(QUICK, tokens=5000), ConfigError, "--guide-tokens 5000"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(case: str, tiny: Path, tmp_path: Path) -> None:
    plan, kind, words = WRONG[case]
    with pytest.raises(kind, match=words):
        search(tiny, tmp_path / "factors.json", plan=plan)
    assert list(tmp_path.iterdir()) == []


def test_outputs_in_the_way(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "factors.json").write_text("{}")
    with pytest.raises(OutputError, match=r"factors\.json exists; pass --force"):
        search(tiny, tmp_path / "factors.json", plan=QUICK)
    with pytest.raises(OutputError, match="no such folder"):
        search(tiny, tmp_path / "nowhere" / "factors.json", plan=QUICK)
    with pytest.raises(OutputError, match="no interrupted search is there"):
        search(tiny, tmp_path / "other.json", plan=QUICK, resume=True)
