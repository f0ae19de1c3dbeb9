"""The real model: SmolLM2-135M-Instruct through the commands, judged by llama.cpp."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import numpy as np
import pytest

from ropeconv.cli import main

pytestmark = [pytest.mark.real, pytest.mark.llama]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        main(list(arguments))
    return int(done.value.code or 0)


@pytest.fixture(scope="module")
def f32(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("smollm2") / "x4-f32.gguf"
    assert (
        run("gguf", str(smollm2), "--pi-factor", "4", "--type", "F32", "-o", str(out), "--quiet")
        == 0
    )
    return out


def test_f32_is_exact_at_every_band(f32: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run("verify", str(f32), "--tokens", "1024", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    bands = [band for measured in report["measured"] for band in measured["bands"]]
    assert len(bands) >= 2
    assert max(band["nmse"] for band in bands) <= 1e-8


def test_q4_k_m_has_the_bytes_of_llama_quantize(smollm2: Path, f32: Path, tmp_path: Path) -> None:
    """One pass from the checkpoint against llama.cpp's quantiser on the F32 file: every tensor's
    type and bytes.
    """
    import llama_cpp
    from gguf import GGUFReader

    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    assert (
        run(
            "gguf", str(smollm2), "--pi-factor", "4", "--type", "Q4_K_M", "-o", str(ours), "--quiet"
        )
        == 0
    )
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M, 2
    assert (
        llama_cpp.llama_model_quantize(
            str(f32).encode(), str(theirs).encode(), ctypes.byref(parameters)
        )
        == 0
    )
    wanted = {tensor.name: tensor for tensor in GGUFReader(theirs).tensors}
    found = {tensor.name: tensor for tensor in GGUFReader(ours).tensors}
    assert set(found) == set(wanted)
    different = [
        name
        for name, tensor in wanted.items()
        if found[name].tensor_type != tensor.tensor_type
        or not np.array_equal(found[name].data, tensor.data)
    ]
    assert different == []
    assert len({tensor.tensor_type for tensor in wanted.values()}) >= 4  # a mix, not one type


def test_the_packaged_gguf_takes_a_scaling_and_keeps_its_tokens(
    smollm2: Path, tmp_path: Path
) -> None:
    """GGUF in, GGUF out: the file that the package ships, its own reader's tokens against the
    folder's tokenizer.
    """
    import runpy

    from tokenizers import Tokenizer

    from converters.to_gguf.run import tokenize
    from ropeconv.proof.tokens.texts import SCRIPT_SAMPLES

    sample = runpy.run_path(str(Path(__file__).parents[2] / "samples" / "make_checkpoint.py"))
    out = tmp_path / "x4.gguf"
    assert (
        run(
            "gguf", str(sample["packaged_smollm2"]()), "--pi-factor", "4", "-o", str(out), "--quiet"
        )
        == 0
    )
    tokenizer = Tokenizer.from_file(str(smollm2 / "tokenizer.json"))
    for text in SCRIPT_SAMPLES.values():
        assert tokenize(out, text) == tokenizer.encode(text).ids
