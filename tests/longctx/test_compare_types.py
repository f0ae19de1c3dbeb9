"""Files of one model side by side: their numbers, which to ship, what is refused, what is kept."""

from __future__ import annotations

import csv
import json
import re
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.extend import ScalingRequest
from ropeconv.longctx.compare.files.choice import frontier, to_ship
from ropeconv.longctx.compare.files.question import FilesQuestion
from ropeconv.longctx.compare.files.run import compare_files
from ropeconv.longctx.compare.files.speed import Reading
from tests.command_line import report
from tests.command_line import run as run_command
from tests.longctx import plain
from tests.longctx.comparing import ROPE, ids_of, start
from tests.longctx.finished import (
    TOKENS,
    Files,
    compare_types,
    distances,
    log_softmax,
    own_logits,
    transformers_logits,
    write_gguf,
    write_onnx,
)

pytestmark = [pytest.mark.llama, pytest.mark.torch]


def test_numbers_are_those_of_the_runtimes_against_transformers(
    files: Files, tiny: Path, text: Path, tmp_path: Path
) -> None:
    found = compare_types(list(files.values()), tmp_path / "out", text)
    ids = ids_of(tiny, text, TOKENS)
    model = plain.load(tiny, ROPE, context=TOKENS, work=tmp_path)
    reference = transformers_logits(model, ids)
    losses = plain.losses(model, ids)
    assert found.reference.short.loss == pytest.approx(losses[:255].mean(), abs=1e-5)
    assert found.reference.long is not None
    assert found.reference.long.loss == pytest.approx(losses[255:].mean(), abs=1e-5)
    for result, path in zip(found.results, files.values(), strict=True):
        own = distances(reference, own_logits(path, ids), ids)
        assert result.kl == pytest.approx(own["kl"].mean(), rel=2e-2, abs=1e-8)
        assert result.kl_short == pytest.approx(own["kl"][:256].mean(), rel=2e-2, abs=1e-8)
        assert result.kl_long == pytest.approx(own["kl"][256:].mean(), rel=2e-2, abs=1e-8)
        assert result.top1 == pytest.approx(own["top1"], abs=3 / TOKENS)
        assert result.perplexities.short.loss == pytest.approx(own["losses"][:255].mean(), abs=1e-4)
        assert result.perplexities.long is not None
        assert result.perplexities.long.loss == pytest.approx(own["losses"][255:].mean(), abs=1e-4)
        assert result.generating > 0
    full, eight, four, plain_onnx, int4 = (result.kl for result in found.results)
    assert max(full, plain_onnx) < 1e-6
    assert 1e-6 < eight * 10 < min(four, int4)  # no two rows can be exchanged unseen


def test_sizes_are_of_all_that_is_loaded_by_the_weights_of_the_source(
    files: Files, tiny: Path, text: Path, tmp_path: Path
) -> None:
    from safetensors import safe_open

    with safe_open(tiny / "model.safetensors", "np") as source:
        weights = sum(source.get_tensor(name).size for name in source.keys())  # noqa: SIM118
    found = compare_types([files["Q8_0"], files["int4"]], tmp_path / "out", text)
    gguf, onnx = found.results
    graphs = [path.stat().st_size for path in (files["int4"] / "onnx").iterdir()]
    assert len(graphs) == 2
    assert (gguf.size, onnx.size) == (files["Q8_0"].stat().st_size, sum(graphs))
    assert gguf.bits == pytest.approx(8 * gguf.size / weights)
    assert found.weights == weights


@dataclass(frozen=True)
class Weighed:
    name: str
    size: int
    kl: float


def test_the_frontier_is_what_no_other_beats_in_both() -> None:
    a, b, c, d = (Weighed(*row) for row in (("a", 4, 1), ("b", 8, 0.1), ("c", 6, 2), ("d", 9, 0.2)))
    assert frontier([d, c, b, a]) == [a, b]
    same = replace(b, name="same", kl=0.05)
    assert frontier([a, b, same]) == [a, same]
    assert frontier([a, replace(a, name="twin")]) == [a]
    for one in (a, b, c, d):  # the definition, word for word
        beaten = any(o.size < one.size and o.kl < one.kl for o in (a, b, c, d))
        assert (one in frontier([a, b, c, d])) is not beaten
    assert to_ship([a, b, c, d], 8) == b
    assert to_ship([a, b, c, d], 7) == a
    assert to_ship([a, b, c, d], 3) is None
    assert to_ship([a], None) is None


def test_a_pass_is_timed_by_its_whole_blocks() -> None:
    """The first one, which loads, and the last, which is short, take longer than they should."""

    def blocks() -> Any:
        for count, seconds in ((500, 0.2), (500, 0.02), (500, 0.02), (3, 0.1)):
            time.sleep(seconds)
            yield np.zeros((count, 1), np.float32)

    reading = Reading()
    assert sum(map(len, reading.timed(blocks()))) == 1503
    assert 10_000 < reading.speed < 25_000
    short = Reading()
    assert len(list(short.timed(iter([np.zeros((9, 1), np.float32)])))) == 1
    assert np.isnan(short.speed)


def test_longrope_counts_each_table_where_it_is_met(tiny: Path, text: Path, tmp_path: Path) -> None:
    from ropeconv.api import convert

    rope = {
        "rope_type": "longrope",
        "short_factor": [1.0] * 8,
        "long_factor": [3.0] * 8,
        "factor": 2.0,
    }
    out = tmp_path / "long.gguf"
    request = ScalingRequest(kind=None, huggingface=rope)
    convert(tiny, "gguf", out, scaling=request, type="F32")
    found = compare_types([out], tmp_path / "out", text)
    whole = rope | {"original_max_position_embeddings": 256, "rope_theta": 20000.0}
    model = plain.load(tiny, whole, context=TOKENS, work=tmp_path)
    ids = ids_of(tiny, text, TOKENS)
    short = plain.losses(model, ids[:256]).mean()
    assert found.reference.short.loss == pytest.approx(short, abs=1e-5)
    assert found.reference.long is not None
    first = -log_softmax(transformers_logits(model, ids[:256])[-1:])[0, ids[256]]
    long = [first, *plain.losses(model, ids)[256:]]
    assert found.reference.long.loss == pytest.approx(np.mean(long), abs=1e-5)
    assert found.reference.long.tokens == 256
    assert found.results[0].kl < 1e-6
    assert abs(plain.losses(model, ids)[:255].mean() - short) > 1e-3


def test_a_second_run_measures_only_what_is_missing(
    files: Files, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    paths = list(files.values())
    compare_types(paths[:2], out, text)
    kept = {path: path.stat().st_mtime_ns for path in (out / "rows").iterdir()}
    assert len(list((out / "rows").glob("reference-*.npy"))) == 1
    found = compare_types(paths, out, text)  # the reference runs for none of them again
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list((out / "rows").iterdir())) == len(kept) + 3
    row = next(path for path in kept if path.suffix == ".npz")
    row.write_bytes(b"spoilt")
    next((out / "rows").glob("reference-*.npy")).write_bytes(b"spoilt")
    again = compare_types(paths, out, text)
    assert [r.kl for r in again.results] == pytest.approx([r.kl for r in found.results], rel=1e-3)
    assert row.stat().st_size > 1000
    count = len(list((out / "rows").iterdir()))
    compare_types(paths[:1], out, text, tokens=400)  # another text: a reference and a row more
    assert len(list((out / "rows").iterdir())) == count + 2


def test_reports(
    files: Files, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    paths = [str(path) for path in files.values()]
    limit = files["Q8_0"].stat().st_size
    common = ["compare", "--types", *paths, "--text", str(text), "--tokens", str(TOKENS)]
    common += ["-o", str(out), "--max-bytes", str(limit)]
    facts = report(common, capsys)
    assert facts == json.loads((out / "report.json").read_text())
    assert [entry["type"] for entry in facts["files"]][:3] == ["F32", "Q8_0", "Q4_0"]
    small = [entry for entry in facts["files"] if entry["bytes"] <= limit]
    assert facts["ship"] == min(small, key=lambda entry: entry["kl"])["label"] == "eight.gguf"
    assert "full.gguf" in facts["frontier"]
    lines = list(csv.DictReader((out / "report.csv").read_text().splitlines()))
    assert [float(line["kl"]) for line in lines] == [entry["kl"] for entry in facts["files"]]
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 1
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", page)
    said, _ = run_command([*common, "--quiet"], capsys)
    row = next(line for line in said.splitlines() if "eight.gguf" in line)
    assert f"{facts['files'][1]['kl']:.4f}" in row
    assert "yes" in row
    assert f"ship eight.gguf: the lowest KL within {limit:,} bytes" in said


def test_an_interrupted_comparison_of_files_keeps_its_rows(tiny: Path, tmp_path: Path) -> None:
    names = ("F32", "Q8_0", "Q4_0")
    paths = [str(write_gguf(tiny, tmp_path / f"{n}.gguf", n, factor=4.0)) for n in names]
    out = tmp_path / "out"
    common = ["compare", "--types", *paths, "--tokens", "1024", "--quiet", "-o", str(out)]
    running = start(*common)
    deadline = time.monotonic() + 120
    while not list(out.glob("rows/[!.]*.npz")) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 2, said
    assert not (out / "report.html").exists()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("rows/[!.]*")}
    assert 2 <= len(kept) < 4  # the reference, and not all of the files
    again = compare_files(paths, out, question=FilesQuestion(tokens=1024))
    assert again is not None
    assert len(again.results) == 3
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_every_type_in_a_folder_is_a_row(tiny: Path, text: Path, tmp_path: Path) -> None:
    out = write_onnx(tiny, tmp_path / "both", "fp32")
    write_onnx(tiny, out, "int4", add=True)
    found = compare_types([out], tmp_path / "out", text)
    assert [result.type for result in found.results] == ["fp32", "int4"]
    graphs = [path for path in (out / "onnx").iterdir() if path.suffix == ".onnx"]
    assert {result.label for result in found.results} == {path.name for path in graphs}
    plain_onnx, int4 = found.results
    assert plain_onnx.kl < 1e-6 < int4.kl
    assert int4.size < plain_onnx.size
