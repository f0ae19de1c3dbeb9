"""The reference on another device and in another type: what is right, what is refused, what is
told.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ropeconv.cli import main
from ropeconv.errors import ConfigError
from ropeconv.proof.reference.arithmetic import Arithmetic
from ropeconv.proof.report import FAIL
from ropeconv.proof.run import verify
from tests.families import model_logits, random_ids
from tests.proof.conftest import Sound
from tests.proof.reference.references import LONGROPE, PLAIN, layerwise, save, text_logits, whole

pytestmark = pytest.mark.torch
TOKENS = 700


def test_a_type_by_name_is_the_whole_models_too(tmp_path: Path) -> None:
    import torch

    checkpoint = save(tmp_path, "llama")
    model = whole(checkpoint).to(torch.bfloat16)
    ids = random_ids(50)
    found = text_logits(layerwise(checkpoint, dtype="bfloat16"), ids)
    assert found.dtype == np.float32
    with torch.no_grad():
        own = model(torch.tensor([ids]), use_cache=False).logits[0].float().numpy()
    np.testing.assert_allclose(found, own, atol=0.05 * float(np.abs(own).max()))
    assert not np.array_equal(found, text_logits(layerwise(checkpoint), ids))


@pytest.mark.llama
def test_a_coarse_reference_widens_the_limits_and_is_told(linear: Sound, tmp_path: Path) -> None:
    path = linear.gguf.write(tmp_path / "t.gguf")
    report = verify(path, tokens=300, arithmetic=Arithmetic(dtype="bfloat16"))
    assert report.ok
    assert "within the limits of F32 and of a reference in bfloat16, over" in report.verdict
    assert report.measured[0].whole.nmse > 1e-6  # beyond F32's own limit
    wrong = linear.changed(keys={"rope.scaling.type": "none"}).gguf.write(tmp_path / "w.gguf")
    report = verify(wrong, tokens=300, arithmetic=Arithmetic(dtype="bfloat16"))
    failed = {rung.name for rung in report.rungs if rung.status == FAIL}
    assert {"frequencies", "logits"} <= failed


@pytest.mark.llama
def test_the_command_says_where_and_in_what_the_reference_ran(
    linear: Sound, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(linear.gguf.write(tmp_path / "t.gguf"))
    with pytest.raises(SystemExit) as caught:
        main(["verify", path, "--tokens", "64", "--device", "cpu", "--dtype", "bfloat16"])
    assert caught.value.code == 0
    assert "transformers, bfloat16)" in capsys.readouterr().out


def test_a_device_or_type_that_is_not_there_is_refused_in_one_line(
    linear: Sound, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    path = linear.gguf.write(tmp_path / "t.gguf")
    for arithmetic, text in (
        (Arithmetic(dtype="float16"), "--dtype float16: the reference computes in float32, bfl"),
        (Arithmetic(device="tpu"), "--device tpu: PyTorch runs on cpu, cuda here"),
    ):
        with pytest.raises(ConfigError, match=text):
            verify(path, arithmetic=arithmetic)
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit) as caught:
            main(["verify", str(path), "--device", "cuda"])
        assert caught.value.code == 2
        line = "--device cuda: PyTorch sees no such device here; leave it out"
        assert line in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.llama
def test_a_reference_on_a_gpu_gives_the_same_verdicts(linear: Sound, tmp_path: Path) -> None:
    path = linear.gguf.write(tmp_path / "t.gguf")
    report = verify(path, arithmetic=Arithmetic(device="cuda"))
    assert report.ok
    assert report.device == "cuda"
    wrong = linear.changed(keys={"rope.scaling.factor": 4.04}).gguf.write(tmp_path / "w.gguf")
    report = verify(wrong, arithmetic=Arithmetic(device="cuda"))
    assert {"frequencies", "logits"} <= {r.name for r in report.rungs if r.status == FAIL}


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "phi3", "qwen3_moe"])
def test_a_gpu_computes_the_same(family: str, tmp_path: Path) -> None:
    checkpoint = save(tmp_path, family, LONGROPE if family == "phi3" else PLAIN)
    reference, ids = layerwise(checkpoint, device="cuda"), random_ids(TOKENS)
    own = model_logits(whole(checkpoint), ids)
    limit = 1e-4 * float(np.abs(own).max())
    np.testing.assert_allclose(text_logits(reference, ids), own, rtol=0, atol=limit)
    for kind, found in layerwise(checkpoint).frequencies().items():
        np.testing.assert_array_equal(reference.frequencies()[kind].inv_freq, found.inv_freq)
