"""`verify` of a folder: a sound one passes, and every planted fault turns the verdict."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ropeconv.api import convert as convert_source
from ropeconv.extend import ScalingRequest
from ropeconv.proof.report import Report
from ropeconv.proof.run import verify
from tests.checkpoints import save_checkpoint

pytestmark = pytest.mark.torch
L = 256


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("source") / "model", "llama", context=L)


def write(source: Path, out: Path, request: ScalingRequest, **options: Any) -> Path:
    convert_source(source, "safetensors", out, scaling=request, **options)
    return out


def check(out: Path) -> Report:
    return verify(out, tokens=L + 64)


def failed(report: Report) -> set[str]:
    return {rung.name for rung in report.rungs if rung.status == "fail"}


@pytest.mark.parametrize("kind", ["linear", "ntk", "yarn"])
def test_a_sound_folder_passes_exactly(kind: str, source: Path, tmp_path: Path) -> None:
    report = check(write(source, tmp_path / "out", ScalingRequest(kind=kind, factor=4)))
    assert report.ok, report
    assert {(measured.whole.nmse, measured.whole.max_abs) for measured in report.measured} == {
        (0.0, 0.0)
    }


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_rounded_weights_pass_within_their_limits(dtype: str, source: Path, tmp_path: Path) -> None:
    report = check(
        write(source, tmp_path / "out", ScalingRequest(kind="yarn", factor=4), dtype=dtype)
    )
    # a random model of 2 layers is no measure of a type's limits
    assert not failed(report) - {"logits"}
    assert report.measured[0].whole.nmse > 0


def test_longrope_runs_below_and_past_its_switch(source: Path, tmp_path: Path) -> None:
    request = ScalingRequest(
        kind="longrope", factor=4, parameters={"short_factor": [1.5] * 8, "long_factor": [4.0] * 8}
    )
    report = check(write(source, tmp_path / "out", request))
    assert report.ok, report
    assert len(report.measured) == 2


def test_another_softcap_is_the_models_own(tmp_path: Path) -> None:
    source = save_checkpoint(
        tmp_path / "gemma", "gemma3_text", context=L, final_logit_softcapping=5.0
    )
    report = check(write(source, tmp_path / "out", ScalingRequest(kind="linear", factor=4)))
    assert report.ok, report


def edit_config(**changes: Any) -> Callable[[Path], None]:
    """Both generations of keys, so that the folder says one thing, and a wrong one."""

    def edit(out: Path) -> None:
        config = json.loads((out / "config.json").read_text())
        for key, value in changes.items():
            for holder in ("rope_parameters", "rope_scaling"):
                config[holder] = {**config[holder], key: value}
            if key == "rope_theta":
                config[key] = value
        (out / "config.json").write_text(json.dumps(config))

    return edit


def edit_tensor(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def edit(out: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = {
            key: value.clone() for key, value in load_file(out / "model.safetensors").items()
        }
        tensors[name] = change(tensors[name]).contiguous()
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})

    return edit


def swap_pairs(weight: Any) -> Any:
    """Rows of the first head as adjacent pairs: another layout of the rotation."""
    import torch

    order = torch.arange(weight.shape[0])
    order[:16] = order[:16].reshape(2, 8).T.reshape(-1)
    return weight[order]


def drop_token(out: Path) -> None:
    tokenizer = json.loads((out / "tokenizer.json").read_text())
    tokenizer["model"]["merges"].pop(0)
    (out / "tokenizer.json").write_text(json.dumps(tokenizer))


Q = "model.layers.0.self_attn.q_proj.weight"
FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "factor off by 1 %": (edit_config(factor=4.04), "frequencies"),
    "theta halved": (edit_config(rope_theta=10000.0), "frequencies"),
    "magnitude dropped": (edit_config(attention_factor=1.0), "frequencies"),
    "pairs swapped": (edit_tensor(Q, swap_pairs), "weights"),
    "one tensor scaled": (edit_tensor(Q, lambda weight: weight * 1.01), "weights"),
    "a merge lost": (drop_token, "tokens"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_turns_the_verdict(fault: str, source: Path, tmp_path: Path) -> None:
    plant, rung = FAULTS[fault]
    out = write(source, tmp_path / "out", ScalingRequest(kind="yarn", factor=4))
    plant(out)
    report = check(out)
    assert not report.ok
    assert rung in failed(report)
    if rung != "tokens":
        assert "logits" in failed(report)


def test_the_command_judges_a_folder_and_another_programs_too(
    source: Path, tmp_path: Path, capsys: Any
) -> None:
    from ropeconv.cli import main

    out = write(source, tmp_path / "out", ScalingRequest(kind="linear", factor=4))
    (out / "ropeconv.json").unlink()
    arguments = ["verify", str(out), "--tokens", "300", "--json", "--reference", str(source)]
    verdicts = []
    for factor in ("4", "2"):
        capsys.readouterr()
        with pytest.raises(SystemExit) as done:
            main([*arguments, "--pi-factor", factor])
        verdicts.append((done.value.code, json.loads(capsys.readouterr().out)["target"]))
    assert verdicts == [(0, "safetensors"), (1, "safetensors")]
