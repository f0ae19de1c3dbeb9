"""Running a folder: chunks with the cache, LongRoPE across its switch, tokens, devices; and the
numbers read back.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.to_onnx.read.artefact import open_artefact
from ropeconv.cli import main
from ropeconv.errors import CheckpointError, ConfigError
from ropeconv.extend import ScalingRequest
from ropeconv.proof.run import open_any, verify
from tests.checkpoints import save_checkpoint
from tests.families import random_ids
from tests.methods import LONG, ramp
from tests.to_onnx.onnx_folders import convert, in_transformers, load, relative, writable

L, LIMIT = 256, 1e-4
LONGROPE = {"short_factor": ramp(1.5), "long_factor": ramp(4.0)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("source") / "model", "llama", context=L)


@pytest.mark.parametrize("bake", ["metadata", "tables"])
def test_a_long_text_in_chunks_takes_the_long_table_from_its_first_token(
    bake: str, source: Path, tmp_path: Path
) -> None:
    convert(
        source,
        tmp_path / "out",
        ScalingRequest(kind="longrope", factor=4, parameters=LONGROPE),
        bake=bake,
    )
    rope = LONG | {"rope_theta": 20000.0} | LONGROPE
    model = load(source, rope_parameters=rope, max_position_embeddings=4 * L)
    artefact = open_artefact(tmp_path / "out")
    for length in (L, L + 1, 4 * L - 3):
        ids = random_ids(length)
        got = np.concatenate(list(artefact.logits(ids, length)))
        assert relative(got[None], in_transformers(model, np.array([ids]))) <= LIMIT, length


@pytest.mark.parametrize("bake", ["metadata", "tables"])
def test_frequencies_are_transformers_own(bake: str, source: Path, tmp_path: Path) -> None:
    """Read back from the initializers; frequencies bit for bit, those of a table to the rounding of
    its second row.
    """
    convert(
        source,
        tmp_path / "out",
        ScalingRequest(kind="longrope", factor=4, parameters=LONGROPE),
        bake=bake,
    )
    module = load(
        source,
        rope_parameters=LONG | {"rope_theta": 20000.0} | LONGROPE,
        max_position_embeddings=4 * L,
    ).model.rotary_emb
    import torch

    found = open_artefact(tmp_path / "out").frequencies["full_attention"]
    assert found is not None
    assert found.long_inv_freq is not None
    rtol = 2e-7 if bake == "metadata" else 1e-6
    for position, table in ((L - 1, found.inv_freq), (L, found.long_inv_freq)):
        module(torch.zeros(1), torch.tensor([[position]]))
        np.testing.assert_allclose(table, module.inv_freq.double().numpy(), rtol=rtol)
    assert found.switch_context == L
    np.testing.assert_allclose(found.attention_factor, module.attention_scaling, rtol=1e-6)


def test_tokens_are_those_of_tokenizer_json(source: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    convert(source, tmp_path / "out")
    artefact, tokenizer = (
        open_artefact(tmp_path / "out"),
        Tokenizer.from_file(str(source / "tokenizer.json")),
    )
    assert artefact.tokenize("def f(x): return x") == tokenizer.encode("def f(x): return x").ids
    assert artefact.vocabulary() == [
        tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())
    ]
    assert artefact.special_ids["eos"] == 0


def test_the_graph_s_own_name_serves_too(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(source, tmp_path / "out")
    with pytest.raises(SystemExit) as done:
        main(
            ["verify", str(tmp_path / "out" / "onnx" / "model.onnx"), "--tokens", "300", "--quiet"]
        )
    assert done.value.code == 0, capsys.readouterr()
    assert "PASS" in capsys.readouterr().out


def test_a_token_outside_the_vocabulary_is_refused(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out")
    with pytest.raises(CheckpointError, match="token 384 is outside its vocabulary of 384"):
        list(open_artefact(tmp_path / "out").logits([1, 384], 4))


def test_devices(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out")
    target, artefact = open_any(tmp_path / "out", provider="cpu")
    assert target.name == "onnx"
    assert len(artefact.probes) == 4
    with pytest.raises(ConfigError, match=r"--provider metal: not for onnx \(cpu, cuda\)"):
        open_any(tmp_path / "out", provider="metal")
    with pytest.raises(ConfigError, match=r"not for safetensors \(it has no choice\)"):
        open_any(source, provider="cuda")


@pytest.mark.torch
def test_int4_keeps_its_limits_and_a_scaled_one_does_not(smollm2: Path, tmp_path: Path) -> None:
    """Of a real model; what the types cost it is `test_types_smollm2.py`'s."""
    out = tmp_path / "out"
    convert(smollm2, out, ScalingRequest(kind="linear", factor=4), type="int4")
    report = verify(out, reference=smollm2, tokens=256)
    assert report.ok, report.verdict
    values = writable(out, "model.layers.3.mlp.down_proj.weight_scales")
    values[:] = values * 1.01
    spoilt = verify(out, reference=smollm2, tokens=64)
    assert [rung.status for rung in spoilt.rungs if rung.name == "weights"] == ["fail"]


@pytest.mark.long
@pytest.mark.torch
def test_smollm2_past_its_trained_context(smollm2: Path, tmp_path: Path) -> None:
    convert(smollm2, tmp_path / "out", ScalingRequest(kind="linear", factor=4))
    report = verify(tmp_path / "out", reference=smollm2, tokens=8704)
    assert report.ok, report.verdict
    assert report.reached == 8704
