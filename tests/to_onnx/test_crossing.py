"""A text that grows past LongRoPE's switch with the cache of a client, and the memory that a cache
takes, against transformers and in onnxruntime-genai.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.cli import main
from ropeconv.extend import ScalingRequest
from ropeconv.proof.run import verify
from tests.checkpoints import save_checkpoint
from tests.families import nmse, random_ids
from tests.methods import LONG, ramp
from tests.to_onnx.onnx_folders import convert, in_onnxruntime, load

L = 64
FACTORS = {"short_factor": ramp(1.5), "long_factor": ramp(4.0)}
LONGROPE = ScalingRequest(kind="longrope", factor=4, parameters=FACTORS)
HAS_GENAI = importlib.util.find_spec("onnxruntime_genai") is not None
needs_genai = pytest.mark.skipif(not HAS_GENAI, reason="onnxruntime-genai is not installed")


def phi3(folder: Path, trained: int) -> Path:
    """A Phi-3 of twice its trained context, with two tables."""
    rope = {**LONG, **FACTORS, "rope_theta": 10000.0, "original_max_position_embeddings": trained}
    return save_checkpoint(
        folder, "phi3", context=2 * trained, rope=rope, original_max_position_embeddings=trained
    )


def written(source: Path, out: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What the command says on stderr."""
    with pytest.raises(SystemExit) as done:
        main(["onnx", str(source), "-o", str(out), "--quiet", *options])
    assert done.value.code in (0, None)
    return capsys.readouterr().err


@pytest.mark.parametrize("profile", ["ort", "standard"])
def test_two_tables_are_told_when_they_are_written_and_when_they_are_proven(
    profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = phi3(tmp_path / "model", L)
    said = written(source, tmp_path / "out", capsys, "--profile", profile)
    assert f"note D11: two LongRoPE tables, the second from {L + 1} tokens on" in said
    assert "which transformers drops" in said
    report = verify(tmp_path / "out", tokens=2 * L)
    assert report.ok
    assert "note D11: two LongRoPE tables" in report.rungs[0].summary
    # the same divisors for all lengths: nothing to tell
    one = tmp_path / "one"
    pinned = {**LONG, "short_factor": ramp(4.0), "long_factor": ramp(4.0), "rope_theta": 10000.0}
    save_checkpoint(one, "phi3", context=2 * L, rope=pinned, original_max_position_embeddings=L)
    assert "D11" not in written(one, tmp_path / "out-one", capsys)


@pytest.mark.torch
def test_a_cache_that_crosses_is_transformers_own_where_that_keeps_it(tmp_path: Path) -> None:
    """Llama: cached keys stay as the short table turned them, in both; so the note says."""
    import torch

    source = save_checkpoint(tmp_path / "model", "llama", context=L)
    convert(source, tmp_path / "out", LONGROPE)
    rope = LONG | {"rope_theta": 20000.0, "original_max_position_embeddings": L} | FACTORS
    model = load(source, rope_parameters=rope, max_position_embeddings=4 * L)
    ids = np.array([random_ids(L + 24)])
    cuts = (L - 8, *range(L - 7, L + 24))
    found = in_onnxruntime(tmp_path / "out", ids, cuts=cuts)
    parts, cache = [], None
    with torch.no_grad():
        for start, stop in zip((0, *cuts), (*cuts, L + 24), strict=True):
            given = torch.from_numpy(ids[:, start:stop])
            made = model(given, past_key_values=cache, use_cache=True)
            cache, parts = made.past_key_values, [*parts, made.logits.numpy()]
    wanted = np.concatenate(parts, axis=1)
    assert nmse(found, wanted) < 1e-9
    with torch.no_grad():
        whole = model(torch.from_numpy(ids), use_cache=False).logits.numpy()
    assert nmse(found[:, L:], whole[:, L:]) > 1e-2  # one pass turns them all by the long one


GREEDY = """
import json, sys
import numpy, onnxruntime_genai as genai
folder, ids, new = sys.argv[1], json.loads(sys.stdin.read()), int(sys.argv[2])
model = genai.Model(folder)
parameters = genai.GeneratorParams(model)
total = len(ids) + new
parameters.set_search_options(max_length=total, min_length=total, do_sample=False)
generator = genai.Generator(model, parameters)
generator.append_tokens(numpy.array(ids, dtype=numpy.int32))
for _ in range(new):
    generator.generate_next_token()
print(json.dumps([int(i) for i in generator.get_sequence(0)][len(ids):]))
"""


def greedy(folder: Path, ids: list[int], new: int) -> list[int]:
    """By onnxruntime-genai, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", GREEDY, str(folder), str(new)],
        input=json.dumps(ids), capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: list[int] = json.loads(done.stdout)
    return found


@needs_genai
@pytest.mark.torch
@pytest.mark.parametrize(("trained", "kind"), [(4096, "phi3"), (512, "decoder")])
def test_genai_drops_its_cache_where_transformers_does(
    trained: int, kind: str, tmp_path: Path
) -> None:
    """At a length that it knows; at another one its text is another, as is told."""
    import torch

    source, out, new = phi3(tmp_path / "model", trained), tmp_path / "out", 16
    convert(source, out, None)
    told = json.loads((out / "genai_config.json").read_text())
    assert told["model"]["type"] == kind
    ids = random_ids(trained - 6)
    model = load(source)
    given = torch.tensor([ids])
    with torch.no_grad():
        wanted = model.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=new, min_new_tokens=new,
            do_sample=False, pad_token_id=0,
        )[0, len(ids) :].tolist()  # fmt: skip
    found = greedy(out, ids, new)
    assert found[:6] == wanted[:6]
    if kind == "decoder":
        return
    assert found == wanted
    told["model"]["type"] = "decoder"
    (out / "genai_config.json").write_text(json.dumps(told))
    assert greedy(out, ids, new) != wanted


MEMORY = """
import sys
import numpy, onnxruntime_genai as genai
model = genai.Model(sys.argv[1])
parameters = genai.GeneratorParams(model)
if sys.argv[2] != "0":
    parameters.set_search_options(max_length=int(sys.argv[2]))
generator = genai.Generator(model, parameters)
generator.append_tokens(numpy.array([5, 6, 7], dtype=numpy.int32))
for _ in range(3):
    generator.generate_next_token()
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
"""


def megabytes(folder: Path, length: int) -> int:
    """Peak of a process that writes three tokens. length: max_length, 0 for the folder's own."""
    command = [sys.executable, "-c", MEMORY, str(folder), str(length)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@needs_genai
@pytest.mark.torch
def test_a_short_text_does_not_pay_for_the_whole_context(tmp_path: Path) -> None:
    """A cache of 128 MiB beside weights of a few: it grows with the text."""
    source, out = save_checkpoint(tmp_path / "model", "llama", context=L), tmp_path / "out"
    convert(source, out, ScalingRequest(kind="linear", factor=4096))
    told: dict[str, Any] = json.loads((out / "genai_config.json").read_text())
    assert told["search"]["max_length"] == 4096 * L
    assert megabytes(out, 0) < megabytes(out, 64) + 40
    told["search"]["past_present_share_buffer"] = True
    (out / "genai_config.json").write_text(json.dumps(told))
    assert megabytes(out, 0) > megabytes(out, 64) + 100


@pytest.mark.parametrize(("factor", "shares"), [(1, True), (64, False)])
def test_buffers_are_shared_where_the_whole_cache_is_smaller_than_the_weights(
    factor: int, shares: bool, tmp_path: Path
) -> None:
    import onnx

    source, out = save_checkpoint(tmp_path / "model", "llama", context=L), tmp_path / "out"
    convert(source, out, None if factor == 1 else ScalingRequest(kind="linear", factor=factor))
    graph = onnx.load(str(out / "onnx" / "model.onnx"), load_external_data=False).graph
    dims = [v.type.tensor_type.shape.dim for v in graph.input if v.name.startswith("past_")]
    cache = sum(each[1].dim_value * each[3].dim_value * 4 for each in dims) * factor * L
    assert (cache <= (out / "onnx" / "model.onnx_data").stat().st_size) == shares
    told = json.loads((out / "genai_config.json").read_text())["search"]
    assert told["past_present_share_buffer"] == shares
