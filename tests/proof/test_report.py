"""Limits of types, and what a report says of what was measured."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from converters.to_gguf.quant.types import FILE_TYPES
from ropeconv import registry
from ropeconv.errors import CannotExpress
from ropeconv.gates import Gates
from ropeconv.proof.clock import Clock
from ropeconv.proof.compare import Band, compare_logits
from ropeconv.proof.report import (
    AS_RUN,
    FAIL,
    FILE,
    OK,
    TOLD,
    TWIN,
    Measured,
    Report,
    Rung,
    to_json,
)
from ropeconv.proof.rungs import logit_rung, loss_rungs, settings_rungs
from ropeconv.proof.text import Pass
from tests.proof.tensors import Rows, weight_findings

GGUF = registry.targets()["gguf"]


def logit_gates(file_type: str, *, activation: str) -> Gates:
    """The GGUF target's limits for a model of this activation."""
    stack: Any = SimpleNamespace(activations=frozenset({activation}), block_types=frozenset)
    return GGUF.gates(file_type, stack)


def test_a_type_without_limits_is_refused() -> None:
    source = np.ones((2, 32), np.float32)
    assert "no measured limits" in weight_findings(Rows(source, "NVFP4"), Rows(source))[0]
    with pytest.raises(CannotExpress, match="no limits were measured for gguf type 'NVFP4'"):
        logit_gates("NVFP4", activation="silu")


def test_every_file_type_that_is_written_has_limits() -> None:
    for name in FILE_TYPES:
        assert logit_gates(name, activation="silu").nmse > 0
    assert {row.base for row in FILE_TYPES.values() if row.quantised} <= set(GGUF.block_limits)


def test_exact_types_get_room_with_position_and_gelu_a_floor() -> None:
    plain = logit_gates("F32", activation="silu")
    assert plain.at(4096) == plain
    assert plain.at(16384).nmse == pytest.approx(16 * plain.nmse)
    assert plain.at(16384).loss == pytest.approx(4 * plain.loss)
    assert plain.at(16384).top1 == plain.top1
    assert plain.at(4096, count=16).nmse == pytest.approx(2 * plain.nmse)  # of few positions
    assert logit_gates("Q8_0", activation="silu").at(16384) == logit_gates(
        "Q8_0", activation="silu"
    )
    assert logit_gates("F32", activation="gelu_pytorch_tanh").nmse == 1e-5
    assert (
        logit_gates("Q8_0", activation="gelu").nmse == logit_gates("Q8_0", activation="silu").nmse
    )


TOTAL, TRAINED = 50, 32


def compared(factor: float) -> tuple[tuple[Band, ...], Band]:
    """Random logits against themselves with noise, times `factor`."""
    rng = np.random.default_rng(0)
    reference = rng.normal(scale=3, size=(TOTAL, 37)).astype(np.float32)
    noisy = reference + rng.normal(scale=0.3, size=reference.shape).astype(np.float32)
    with np.errstate(invalid="ignore"):
        sides = {"A": [reference], "B": [noisy * np.float32(factor)]}
        ids = [int(i) for i in rng.integers(0, 37, TOTAL)]
        ((bands, whole),) = compare_logits(sides, [("A", "B")], ids, trained=TRAINED)
    return tuple(bands), whole


def measured(factor: float = 1.0, **fields: Any) -> Measured:
    bands, whole = compared(factor)
    narrow = Gates(1e-9, 1e-9, 1.0, 1e-9)
    return Measured(Pass("whole text", TOTAL, TOTAL), bands, whole, narrow, **fields)


def report_of(*rungs: Rung, **fields: Any) -> Report:
    return Report("f", "gguf", "F32", "s", "llama", "linear", 32, 64, rungs, **fields)


def test_what_is_told_of_quantisation_fails_only_without_numbers() -> None:
    for factor, status in ((1.0, OK), (math.nan, FAIL)):
        (rung,) = loss_rungs([measured(factor, judged=False)])
        assert rung.status == status
    assert loss_rungs([measured(math.nan, judged=True)]) == []


def test_what_the_users_settings_cost_is_told_and_never_judged() -> None:
    import torch

    told = measured(judged=False, artefact=AS_RUN, reference=FILE)
    assert loss_rungs([told]) == []
    assert settings_rungs([measured()], "") == []
    (rung,) = settings_rungs([told], "q8_0 cache")
    assert rung.status == TOLD
    whole = told.whole
    cost = whole.loss_artefact - whole.loss_reference
    perplexity = float(torch.tensor(whole.loss_artefact).exp())
    assert rung.summary.startswith(f"q8_0 cache: {cost:+.4f} nats a token against the file ")
    assert f"-> {perplexity:.4g}, KL {whole.kl:.2g}" in rung.summary
    judged = logit_rung([measured(), told], wanted=TOTAL, trained=TRAINED, context=64)
    assert judged.status == FAIL
    wide = replace(measured(), gates=Gates(1.0, 1.0, 0.0, 10.0))
    assert logit_rung([wide, told], wanted=TOTAL, trained=TRAINED, context=64).status == OK


def test_a_limit_that_a_twin_does_not_keep_names_it() -> None:
    rung = logit_rung([measured(artefact=TWIN)], wanted=TOTAL, trained=TRAINED, context=64)
    assert rung.findings[0].startswith("its float twin, positions 0-7: NMSE ")


def test_json_of_a_broken_run_is_json() -> None:
    found = report_of(Rung("logits", FAIL, "x", ("y",)), measured=(measured(math.nan),))
    values = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert values["measured"][0]["whole"]["nmse"] == "nan"
    assert values["verdict"] == "FAIL: logits"
    assert math.isfinite(values["measured"][0]["whole"]["loss_reference"])


def test_a_report_without_logits_is_no_pass() -> None:
    report = report_of(Rung("structure", OK, "x"))
    assert not report.ok
    assert report.verdict == "FAIL: logits did not run"


def test_a_verdict_says_that_its_reference_was_coarse() -> None:
    found = measured()
    for dtype, words in (("float32", "limits of F32, over"), ("bfloat16", "in bfloat16, over")):
        assert words in report_of(measured=(found,), dtype=dtype).verdict


def test_seconds_are_counted_once_and_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr("ropeconv.proof.clock.perf_counter", lambda: next(ticks))
    clock = Clock()
    with clock.of("outer"):
        assert list(clock.each("made", "ab")) == ["a", "b"]
    assert clock.seconds == {"outer": 4.0, "made": 3.0}
