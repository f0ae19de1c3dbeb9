"""Runs beside the file as it is: a float twin, which is judged, and the user's own settings, which
are told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.api import convert, verify
from ropeconv.cli import main
from ropeconv.errors import CheckpointError, ConfigError
from ropeconv.extend import ScalingRequest
from ropeconv.proof.clock import Clock
from ropeconv.proof.passes import find_comparisons, measure
from ropeconv.proof.report import AS_RUN, FAIL, FILE, OK, TOLD, TWIN, Report
from ropeconv.proof.sides import Side
from ropeconv.proof.text import Pass
from tests.checkpoints import save_checkpoint
from tests.to_gguf.gguf_edits import edit

pytestmark = [pytest.mark.llama, pytest.mark.torch]
TOKENS = 300


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("source") / "model", "llama", context=256)


@pytest.fixture(scope="module")
def quantised(source: Path) -> Path:
    out = source.parent / "q8.gguf"
    convert(source, "gguf", out, scaling=ScalingRequest("linear", factor=4.0), type="Q8_0")
    return out


def statuses(report: Report) -> dict[str, str]:
    return {rung.name: rung.status for rung in report.rungs}


def test_a_twin_is_judged_beside_the_file_by_float32s_limits(quantised: Path) -> None:
    report = verify(quantised, tokens=TOKENS, exact=True)
    assert report.ok
    twin, file, told = report.measured
    assert [m.artefact for m in report.measured] == [TWIN, FILE, FILE]
    assert [m.judged for m in report.measured] == [True, True, False]
    assert twin.reference == file.reference != told.reference
    assert twin.whole.nmse < 1e-9 < 1e-5 < file.whole.nmse
    assert twin.gates is not None
    assert file.gates is not None
    assert twin.gates.nmse < 1e-6 < file.gates.nmse
    assert "its float twin" in next(rung.summary for rung in report.rungs if rung.name == "logits")


def test_a_twin_sees_what_the_rounding_of_activations_hides(quantised: Path) -> None:
    wrong = edit(quantised, quantised.parent / "w.gguf", {"llama.rope.scaling.factor": 4.004})
    plain = verify(wrong, tokens=TOKENS)
    assert statuses(plain)["logits"] == OK
    exact = verify(wrong, tokens=TOKENS, exact=True)
    assert statuses(exact)["logits"] == FAIL
    findings = next(rung.findings for rung in exact.rungs if rung.name == "logits")
    assert findings
    assert all(line.startswith("its float twin, positions ") for line in findings)


def test_the_users_settings_add_rows_that_no_verdict_hangs_on(
    quantised: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(quantised), "--tokens", str(TOKENS), "--kv-type", "f16", "--flash-attn"]
    with pytest.raises(SystemExit) as caught:
        main(["verify", *arguments, "--json"])
    assert caught.value.code == 0
    report = json.loads(capsys.readouterr().out)
    rows = [m for m in report["measured"] if m["artefact"] == AS_RUN]
    assert [m["reference"] for m in rows] == [FILE, "PyTorch with the source's weights"]
    assert all(m["gates"] is None and not m["judged"] for m in rows)
    assert rows[0]["whole"]["nmse"] > 0
    assert len(rows[0]["bands"]) == len(report["measured"][0]["bands"])
    rung = next(rung for rung in report["rungs"] if rung["name"] == "as it will run")
    assert rung["status"] == TOLD
    assert rung["summary"].startswith("f16 cache, flash attention: ")


def test_seconds_are_told_of_every_part(quantised: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["verify", str(quantised), "--tokens", "64", "--quiet"])
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("seconds ")]
    for part in ("structure", "tokens", "weights", "PyTorch with the source's weights", FILE):
        assert f"{part} " in line
    total = float(line.rsplit(" ", 1)[1])
    assert total == pytest.approx(
        sum(float(x.rsplit(" ", 1)[1]) for x in line.split(",")[:-1]), abs=0.6
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"exact": True}, r"--exact: .* has no float twin to run; leave it out"),
        ({"kv_type": "q8_0"}, "q8_0 cache: the runtime of .* has no such setting; leave --kv-type"),
        ({"flash_attn": True}, "flash attention: the runtime of .* has no such setting"),
    ],
)
@pytest.mark.parametrize("target", ["onnx", "safetensors"])
def test_what_a_runtime_has_not_is_refused_in_one_line(
    target: str, options: dict[str, Any], text: str, source: Path
) -> None:
    out = source.parent / target
    if not out.exists():
        convert(source, target, out, scaling=ScalingRequest("linear", factor=4.0))
    with pytest.raises(ConfigError, match=text) as caught:
        verify(out, tokens=TOKENS, **options)
    assert "\n" not in str(caught.value)


def test_a_file_without_blocks_has_no_twin_and_a_wrong_cache_is_refused(
    source: Path, quantised: Path, tmp_path: Path
) -> None:
    convert(source, "gguf", tmp_path / "f.gguf", type="F16")
    with pytest.raises(ConfigError, match=r"--exact: f\.gguf \(F16\) has no float twin"):
        verify(tmp_path / "f.gguf", exact=True)
    with pytest.raises(ConfigError, match=r"--kv-type: .*near: q8_0"):
        verify(quantised, kv_type="q8")


def test_settings_that_do_not_run_are_no_verdict_on_the_file() -> None:
    ids = [1, 2, 3, 4]

    def sound(ids: Any, _context: int) -> Iterator[Any]:
        yield np.eye(len(ids), 8, dtype=np.float32)

    def broken(_ids: Any, _context: int) -> Iterator[Any]:
        raise CheckpointError("f: llama.cpp cannot run it at 256 tokens")
        yield

    side: Any = Side("PyTorch", reference=None, gates=None, exact=None, judged=True)  # type: ignore[arg-type]
    comparisons = find_comparisons({FILE: sound, AS_RUN: broken}, [side])
    told = [one for one in comparisons if one.reference == FILE]
    options = {
        "number": 0,
        "run": Pass("x", 4, 4),
        "trained": 4,
        "clock": Clock(),
        "progress": None,
    }
    with pytest.raises(ConfigError, match=r"the file as it will run: f: llama\.cpp cannot run it"):
        measure({FILE: sound, AS_RUN: broken}, told, [], ids, **options)
    with pytest.raises(CheckpointError):
        measure({FILE: broken, AS_RUN: sound}, told, [], ids, **options)
