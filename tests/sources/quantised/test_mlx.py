"""MLX's groups: scale * code + bias, packed bit by bit, embeddings and the head too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ropeconv.sources.quantised import mlx
from tests.sources.quantised import folders
from tests.sources.quantised.integers import packed

GROUP = 32


def pack(bits: int, dtype: torch.dtype = torch.float16) -> folders.Pack:
    def group(stem: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
        own = 8 if stem.endswith("embed_tokens") and bits != 8 else bits
        groups = weight.reshape(len(weight), -1, GROUP)
        bias = groups.amin(-1).to(dtype)
        scale = ((groups.amax(-1) - bias.float()) / (2**own - 1)).to(dtype)
        spread = groups - bias.float()[..., None]
        codes = torch.round(spread / scale.float()[..., None]).clamp(0, 2**own - 1)
        meant = scale.float()[..., None] * codes + bias.float()[..., None]
        words = packed(codes.reshape(weight.shape), own).view(torch.uint32)
        parts = {"weight": words, "scales": scale, "biases": bias}
        return parts, meant.reshape(weight.shape)

    return group


def says(bits: int) -> dict[str, Any]:
    usual: dict[str, Any] = {"group_size": GROUP, "bits": bits, "mode": "affine"}
    if bits != 8:
        usual |= {"model.embed_tokens": {"group_size": GROUP, "bits": 8}, "model.norm.x": False}
    return usual


def quantised(name: str) -> bool:
    return folders.is_linear(name) or name in {"model.embed_tokens.weight", "lm_head.weight"}


def write(source: Path, out: Path, bits: int, **more: Any) -> dict[str, torch.Tensor]:
    return folders.write(
        source,
        out,
        pack(bits, **more),
        settings=says(bits),
        key="quantization",
        quantised=quantised,
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.plain_model(tmp_path_factory.mktemp("mlx") / "plain")


@pytest.mark.torch
@pytest.mark.parametrize("bits", mlx.BITS)
def test_every_weight_is_what_the_codes_mean(bits: int, source: Path, tmp_path: Path) -> None:
    meant = write(source, tmp_path / "mlx", bits)
    folders.edit_config(  # as mlx-lm writes it: twice
        tmp_path / "mlx", lambda config: config | {"quantization_config": config["quantization"]}
    )
    assert folders.worst(tmp_path / "mlx", meant) == 0.0


@pytest.mark.torch
def test_scales_in_bfloat16(source: Path, tmp_path: Path) -> None:
    meant = write(source, tmp_path / "mlx", 4, dtype=torch.bfloat16)
    assert folders.worst(tmp_path / "mlx", meant) == 0.0


@pytest.mark.parametrize("fault", ["no bias", "scale for bias"])
def test_planted_faults_are_seen(
    fault: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meant = write(source, tmp_path / "mlx", 4)
    make = mlx.Packed
    broken = {
        "no bias": lambda one: replace(
            one, bias=replace(one.bias, read=lambda *at: one.bias.read(*at) * 0)
        ),
        "scale for bias": lambda one: replace(one, bias=one.scale),
    }
    spoil = broken[fault]
    monkeypatch.setattr(mlx, "Packed", lambda *values: spoil(make(*values)))
    assert folders.worst(tmp_path / "mlx", meant) > 1e-3


@pytest.mark.llama
@pytest.mark.torch
@pytest.mark.parametrize("target", folders.TARGETS)
def test_conversion_and_proof(
    target: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meant = write(source, tmp_path / "mlx", 4)
    folders.check_proof(tmp_path / "mlx", meant, target, tmp_path, monkeypatch)


def setting(**changes: Any) -> Any:
    """Other values in `quantization`."""
    return lambda folder: folders.edit_config(
        folder, lambda config: config | {"quantization": config["quantization"] | changes}
    )


WRONG: dict[str, tuple[Any, str]] = {
    "no scales": (folders.drop(".scales"), ".scales is missing"),
    "no biases": (folders.drop(".biases"), ".biases is missing"),
    "other bits": (setting(bits=8), "bits is 8 and group_size 32, and"),
    "other groups": (setting(group_size=64), "bits is 4 and group_size 64, and"),
    "bits that nobody packs": (setting(bits=7), "bits is 7, of which ropeconv knows 2, 3, 4"),
    "transposed scales": (folders.change(".scales", lambda scale: scale.T), "has scales of shape"),
    "biases of another shape": (
        folders.change(".biases", lambda bias: bias[:-1]),
        "biases has shape",
    ),
    "an unknown mode": (setting(mode="nvfp4"), "mode is 'nvfp4', of which ropeconv knows affine"),
    "an unknown key": (setting(curve="log"), "has curve, which ropeconv does not read for MLX"),
    "an unknown key of a module": (
        setting(**{"model.embed_tokens": {"curve": "log"}}),
        "model.embed_tokens: has curve, which ropeconv does not read for MLX",
    ),
    "two that differ": (
        lambda folder: folders.edit_config(
            folder, lambda c: c | {"quantization_config": c["quantization"] | {"bits": 3}}
        ),
        "say different things; remove the wrong one",
    ),
    "cut short": (folders.cut_short, "not a readable safetensors file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused(case: str, source: Path, tmp_path: Path, capsys: Any) -> None:
    spoil, reason = WRONG[case]
    write(source, tmp_path / "mlx", 4)
    spoil(tmp_path / "mlx")
    folders.check_refused(tmp_path / "mlx", reason, capsys)
