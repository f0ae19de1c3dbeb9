"""Retrieval tasks: what their prompts hold, and how models and files in their runtimes answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf import run
from converters.to_gguf.read.as_run import text_calls
from ropeconv.artefact import RunSettings
from ropeconv.errors import ConfigError
from ropeconv.longctx.measuring.engine import Engine
from ropeconv.longctx.measuring.passkeys import KeyPrompt, recall_in_file, recall_keys
from ropeconv.longctx.measuring.retrieval import TASKS, check_tasks
from ropeconv.prepare import prepare
from ropeconv.proof.run import open_any
from tests.checkpoints import save_checkpoint
from tests.longctx import plain
from tests.longctx.comparing import ROPE, ask
from tests.longctx.finished import (
    Files,
    log_softmax,
    own_logits,
    transformers_logits,
    write_gguf,
    write_onnx,
)

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Engine:
    return Engine(prepare(str(tiny), None))


def make(task: str, engine: Engine, *, seed: int = 1, keys: int = 3) -> KeyPrompt:
    return TASKS[task](engine.tokenizer, tokens=1500, keys=keys, seed=seed, advice="")


def written(engine: Engine, prompt: KeyPrompt) -> tuple[str, list[str], list[str]]:
    """The text, the questions and the answers, as people read them."""
    decode: Callable[[Any], str] = engine.tokenizer.decode
    questions = [decode(question) for question, _ in prompt.asked]
    return decode(prompt.ids), questions, [decode(answer).strip() for _, answer in prompt.asked]


@pytest.mark.parametrize("task", TASKS)
def test_prompts_are_full_and_follow_the_seed(task: str, engine: Engine) -> None:
    prompt = make(task, engine)
    longest = max(len(question) + len(answer) for question, answer in prompt.asked)
    assert len(prompt.ids) + longest == 1500
    assert prompt == make(task, engine)
    assert prompt.ids != make(task, engine, seed=2).ids
    gaps = -np.diff(prompt.distances)
    assert gaps.max() - gaps.min() <= 12  # even, but for the lengths of the needles
    _, _, answers = written(engine, prompt)
    for answer, distance in zip(answers, prompt.distances, strict=True):
        told = engine.tokenizer.decode(prompt.ids[len(prompt.ids) - distance :])
        assert re.search(r"\d{5}", told)[0] == answer


def test_every_line_of_multi_key_is_a_key_of_another_name(engine: Engine) -> None:
    text, questions, answers = written(engine, make("multi-key", engine))
    told = dict(re.findall(r"The pass key of (\S+) is (\d{5})\.", text))
    assert len(told) == text.count("The pass key of")  # no name twice
    assert len(told) > 20
    names = [re.search(r"What is the pass key of (\S+)\?", question)[1] for question in questions]
    assert [told[name] for name in names] == answers
    lines = sum(len(line) for line in text.splitlines() if line.startswith("The pass key of"))
    assert lines > 0.8 * len(text)


def test_multi_value_asks_for_all_keys_of_one_name_in_order(engine: Engine) -> None:
    text, questions, answers = written(engine, make("multi-value", engine))
    told = re.findall(r"One of the pass keys of (\S+) is (\d{5})\.", text)
    assert len({name for name, _ in told}) == 1
    assert [key for _, key in told] == answers
    for number, question in enumerate(questions):
        assert f"What are all pass keys of {told[0][0]}," in question
        assert re.findall(r"\d{5}", question) == answers[:number]


def test_multi_query_asks_for_several_names_in_order(engine: Engine) -> None:
    text, questions, answers = written(engine, make("multi-query", engine))
    told = dict(re.findall(r"The pass key of (\S+) is (\d{5})\.", text))
    names = re.search(r"What are the pass keys of (.+), in this order", questions[-1])[1]
    assert [told[name] for name in names.split(", ")] == answers
    assert re.findall(r"\d{5}", questions[-1]) == answers[:-1]


def test_unknown_tasks_and_too_many_keys_are_refused(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="no retrieval task 'multikey'; near: multi-key"):
        check_tasks(["multikey"])
    with pytest.raises(ConfigError, match="multi-key is there twice"):
        check_tasks(["multi-key", "passkey", "multi-key"])
    for task in TASKS:
        with pytest.raises(ConfigError, match="--passkeys 99: give 0 to 16"):
            make(task, engine, keys=99)
        with pytest.raises(ConfigError, match="100 tokens are too few for 8 pass keys; give more"):
            TASKS[task](engine.tokenizer, tokens=100, keys=8, seed=0, advice="give more")


def expected_recalls(
    logits: Callable[[list[int]], np.ndarray], prompt: KeyPrompt
) -> list[tuple[float, int]]:
    """(loss, worst rank) of each answer, from a pass over the whole text, without a cache."""
    found = []
    for question, answer in prompt.asked:
        rows = logits([*prompt.ids, *question, *answer])[-len(answer) - 1 : -1]
        picked = np.arange(len(answer)), np.array(answer)
        ranks = (rows > rows[picked][:, None]).sum(1) + 1
        found.append((float(-log_softmax(rows)[picked].mean()), int(ranks.max())))
    return found


@pytest.mark.parametrize("task", TASKS)
def test_recalls_are_those_of_uncached_passes(task: str, engine: Engine, tiny: Path) -> None:
    prompt, model = make(task, engine), plain.load(tiny)
    expected = expected_recalls(lambda ids: transformers_logits(model, ids), prompt)
    found = recall_keys(engine, prompt)
    assert [recall.loss for recall in found] == pytest.approx(
        [loss for loss, _ in expected], abs=2e-4
    )
    assert [recall.rank for recall in found] == [rank for _, rank in expected]


@pytest.mark.llama
@pytest.mark.parametrize("kind", ["F32", "Q4_0", "fp32"])
def test_files_are_asked_in_their_own_runtimes(kind: str, files: Files, engine: Engine) -> None:
    task = TASKS["multi-value"]
    prompt = task(engine.tokenizer, tokens=512, keys=2, seed=0, advice="")
    expected = expected_recalls(lambda ids: own_logits(files[kind], ids), prompt)
    _, artefact = open_any(files[kind])
    assert artefact.branches is not None
    found = recall_in_file(artefact.branches(RunSettings()), prompt)
    assert [recall.loss for recall in found] == pytest.approx(
        [loss for loss, _ in expected], abs=2e-3
    )
    assert [recall.rank for recall in found] == [rank for _, rank in expected]
    assert [recall.distance for recall in found] == prompt.distances


@pytest.mark.llama
def test_rows_of_files_are_those_of_the_scaling_that_they_carry(
    files: Files, tiny: Path, text: Path, tmp_path: Path
) -> None:
    other = write_gguf(tiny, tmp_path / "x4.gguf", "F32", factor=4.0)
    also = [files["F32"], files["fp32"], other]
    choices = {"also": also, "passkeys": 2, "retrieval": ["passkey", "multi-key"], "tokens": 500}
    found = ask(tiny, tmp_path / "out", text=[text], methods=["pi"], **choices)
    pi, gguf, onnx, wrong = (result.measured for result in found.results)
    for task in ("passkey", "multi-key"):
        losses = [recall.loss for recall in pi.recalls(task)]
        assert len(losses) == 2
        assert [recall.loss for recall in gguf.recalls(task)] == pytest.approx(losses, abs=2e-3)
        assert [recall.loss for recall in onnx.recalls(task)] == pytest.approx(losses, abs=2e-3)
        assert [recall.loss for recall in wrong.recalls(task)] != pytest.approx(losses, abs=2e-3)
    again = ask(tiny, tmp_path / "out", text=[text], methods=["pi"], **choices)
    assert again.results[1].measured.retrieval == gguf.retrieval  # out of its record


@pytest.mark.llama
@pytest.mark.parametrize("kind", ["gguf", "onnx"])
@pytest.mark.parametrize("family", ["llama", "lfm2"])
def test_branches_do_not_see_each_other(kind: str, family: str, tmp_path: Path) -> None:
    """Whether the runtime can take tokens out of its memory, or, as of states, cannot."""
    source = save_checkpoint(tmp_path / family, family, context=256)
    write = {"gguf": (write_gguf, "F32"), "onnx": (write_onnx, "fp32")}[kind]
    path = write[0](source, tmp_path / f"out.{kind}", write[1])
    ids = [int(i) for i in np.random.default_rng(0).integers(3, 384, 300)]
    parts = [ids[:5], ids[5:17], ids[:5]]
    _, artefact = open_any(path)
    assert artefact.branches is not None
    found = list(artefact.branches(RunSettings())(ids, parts, 320))
    for logits, part in zip(found, parts, strict=True):
        alone = own_logits(path, [*ids, *part])[-len(part) :]
        np.testing.assert_allclose(logits, alone, atol=2e-4)
    seen = own_logits(path, [*ids, *parts[0], *parts[1]])[-len(parts[1]) :]
    assert np.abs(found[1] - seen).max() > 1e-3


@pytest.mark.llama
def test_cache_types_are_rows_of_their_own(text: Path, tmp_path: Path) -> None:
    wide = {"hidden_size": 128, "head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    source = save_checkpoint(tmp_path / "wide", "llama", context=256, **wide)
    gguf = write_gguf(source, tmp_path / "x2.gguf", "F32")
    onnx = write_onnx(source, tmp_path / "x2-onnx", "fp32")
    choices = {"also": [gguf, onnx], "kv_types": ["f16", "q4_0"], "passkeys": 1, "text": [text]}
    found = ask(source, tmp_path / "out", methods=["pi"], tokens=500, **choices)
    rows = {result.variant.label: result for result in found.results}
    assert list(rows) == [
        "pi x2",
        "x2.gguf",
        "x2.gguf, f16 cache",
        "x2.gguf, q4_0 cache",
        "x2-onnx",
    ]
    assert [row.variant.cache for row in rows.values()] == ["-", "-", "f16", "q4_0", "-"]
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(source)(text.read_text())["input_ids"][:500]
    for kind in ("f16", "q4_0"):
        cache = run.Cache(kind.upper(), flash=True)
        calls = text_calls(500)  # the sums of other calls are rounded otherwise
        logits = np.concatenate(list(run.logits(gguf, ids, 500, calls=calls, cache=cache)))
        losses = -log_softmax(logits)[np.arange(499), np.array(ids[1:])]
        measured = rows[f"x2.gguf, {kind} cache"].measured
        np.testing.assert_allclose(measured.losses, losses, atol=1e-4)
        assert measured.recalls()[0].loss != rows["x2.gguf"].measured.recalls()[0].loss
    coarse, plainly = (rows[f"x2.gguf{end}"].measured.losses for end in (", q4_0 cache", ""))
    assert np.abs(coarse - plainly).max() > 5e-3


@pytest.mark.llama
def test_cache_types_that_cannot_be_are_refused(
    files: Files, tiny: Path, text: Path, tmp_path: Path
) -> None:
    also = {"text": [text], "also": [files["F32"]]}
    with pytest.raises(ConfigError, match=r"no cache type of llama\.cpp 'q9_0'"):
        ask(tiny, tmp_path / "out", **also, kv_types=["q9_0"])
    with pytest.raises(ConfigError, match="it keeps blocks of 32 numbers"):
        ask(tiny, tmp_path / "out", **also, kv_types=["q8_0"])
    with pytest.raises(ConfigError, match="no file of --also runs where there is such a choice"):
        ask(tiny, tmp_path / "out", text=[text], also=[files["fp32"]], kv_types=["f16"])
    assert not (tmp_path / "out").exists()


def test_the_plain_model_is_scaled_as_the_rows_say(tiny: Path, text: Path, tmp_path: Path) -> None:
    """A multi-query row of PI against transformers' own model of it."""
    found = ask(
        tiny, tmp_path / "out", text=[text], methods=["pi"], passkeys=2, retrieval=["multi-query"]
    )
    engine = Engine(prepare(str(tiny), None))
    prompt = TASKS["multi-query"](engine.tokenizer, tokens=512, keys=2, seed=0, advice="")
    model = plain.load(tiny, ROPE, context=512, work=tmp_path)
    expected = expected_recalls(lambda ids: transformers_logits(model, ids), prompt)
    recalls = found.results[0].measured.recalls("multi-query")
    assert [recall.loss for recall in recalls] == pytest.approx([x for x, _ in expected], abs=2e-4)
    assert not found.results[0].measured.recalls()
