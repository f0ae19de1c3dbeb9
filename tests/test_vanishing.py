"""Weights that float16 would turn to zero are refused by every target, and kept by wider types."""

from __future__ import annotations

from pathlib import Path

import pytest

from ropeconv.cli import main
from tests.checkpoints import save_checkpoint

NAME = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint one of whose matrices lies below float16's smallest subnormal, some of it
    negative.
    """
    import torch
    from safetensors.torch import load_file, save_file

    folder = save_checkpoint(tmp_path_factory.mktemp("source") / "model", "llama", context=256)
    weights = load_file(folder / "model.safetensors")
    weights[NAME] = torch.full_like(weights[NAME], -1e-9)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--quiet"])
    return int(done.value.code or 0)


@pytest.mark.parametrize(
    ("command", "narrow", "wide"),
    [
        ("gguf", ("--type", "F16"), ("--type", "F32")),
        ("onnx", ("--type", "fp16"), ("--type", "fp32")),
        ("safetensors", ("--dtype", "F16"), ("--dtype", "BF16")),
    ],
)
def test_they_are_refused(
    command: str,
    narrow: tuple[str, ...],
    wide: tuple[str, ...],
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out.gguf"
    assert run(command, str(source), "--pi-factor", "4", *narrow, "-o", str(out)) == 2
    said = capsys.readouterr().err
    assert NAME in said
    assert "too small for" in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())
    assert run(command, str(source), "--pi-factor", "4", *wide, "-o", str(out)) == 0
