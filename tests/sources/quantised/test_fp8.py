"""FP8 against transformers' own dequantisation: scales of tensors, rows and blocks."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ropeconv.prepare import prepare
from ropeconv.sources.folder import open_checkpoint
from ropeconv.sources.quantised import fp8
from tests.command_line import run
from tests.sources import wrapper_models
from tests.sources.quantised import folders

BLOCK = [24, 40]  # neither divides 64, so that blocks at the edges are cut


def stored(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (weight / scale).to(torch.float8_e4m3fn)


def blocks(block: list[int]) -> folders.Pack:
    """Codes and the scales of blocks of this size."""

    def pack(_: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
        from transformers.integrations.finegrained_fp8 import _dequantize_fp8_weight

        grid = [-(-size // step) for size, step in zip(weight.shape, block, strict=True)]
        scales = torch.rand(grid, generator=generator) * 2e-3 + 1e-3
        spread = scales.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
        codes = stored(weight, spread[: weight.shape[0], : weight.shape[1]])
        meant = _dequantize_fp8_weight(codes, scales, block, torch.float32)
        return {"weight": codes, "weight_scale_inv": scales}, meant

    return pack


def by_transformers(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    operation = Fp8Dequantize(SimpleNamespace())
    return operation._dequantize_one(codes, scale, output_dtype=torch.float32)


def pack_tensor(shape: tuple[int, ...], leaf: str) -> folders.Pack:
    def pack(_: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
        scale = weight.abs().max() / 448
        codes = stored(weight, scale)
        parts = {
            "weight": codes,
            leaf: scale.reshape(shape).clone(),
            "input_scale": torch.tensor(0.5),
        }
        return parts, by_transformers(codes, scale.reshape(1, 1))

    return pack


def pack_rows(_: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
    scale = weight.abs().amax(1, keepdim=True) / 448
    codes = stored(weight, scale)
    return {"weight": codes, "weight_scale": scale}, by_transformers(codes, scale)


def pack_exponents(_: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
    scale = torch.randint(115, 125, (weight.shape[0], weight.shape[1] // 32), generator=generator)
    spread = torch.exp2(scale.float() - 127).repeat_interleave(32, 1)
    codes = stored(weight, spread)
    parts = {"weight": codes, "weight_scale_inv": scale.to(torch.uint8)}
    return parts, by_transformers(codes, scale.to(torch.uint8))


FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}
KINDS: dict[str, tuple[folders.Pack, dict[str, Any]]] = {
    "blocks": (blocks(BLOCK), FP8 | {"weight_block_size": BLOCK}),
    "blocks that nobody states": (blocks([128, 128]), FP8),
    "tensors, []": (pack_tensor((), "weight_scale_inv"), FP8 | {"weight_block_size": None}),
    "tensors, [1]": (pack_tensor((1,), "weight_scale"), FP8 | {"ignored_layers": ["lm_head"]}),
    "rows": (pack_rows, {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}),
    "exponents": (pack_exponents, FP8 | {"weight_block_size": [1, 32], "scale_fmt": "ue8m0"}),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.plain_model(tmp_path_factory.mktemp("fp8") / "plain")


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_transformers_own(kind: str, source: Path, tmp_path: Path) -> None:
    pack, settings = KINDS[kind]
    meant = folders.write(source, tmp_path / "fp8", pack, settings=settings)
    assert folders.worst(tmp_path / "fp8", meant) == 0.0


@pytest.mark.torch
def test_codes_in_a_pytorch_archive(source: Path, tmp_path: Path) -> None:
    pack, settings = KINDS["blocks"]
    meant = folders.write(source, tmp_path / "fp8", pack, settings=settings)
    folders.as_archive(tmp_path / "fp8")
    assert folders.worst(tmp_path / "fp8", meant) == 0.0


def test_a_transposed_scale_is_seen(source: Path, tmp_path: Path) -> None:
    square = lambda name: name.endswith("q_proj.weight")  # noqa: E731 - 64 x 64: a square grid
    settings = FP8 | {"weight_block_size": [32, 32]}

    def pack(_: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
        scale = torch.rand((2, 2), generator=generator) * 1e-3 + 1e-3
        codes = stored(weight, scale.repeat_interleave(32, 0).repeat_interleave(32, 1))
        return {"weight": codes, "weight_scale_inv": scale}, by_transformers(codes, scale)

    meant = folders.write(source, tmp_path / "fp8", pack, settings=settings, quantised=square)
    assert folders.worst(tmp_path / "fp8", meant) == 0.0
    folders.change("scale_inv", lambda scale: scale.T)(tmp_path / "fp8")
    assert folders.worst(tmp_path / "fp8", meant) > 1e-3


@pytest.mark.llama
@pytest.mark.torch
@pytest.mark.parametrize("target", folders.TARGETS)
def test_conversion_and_proof(
    target: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, settings = KINDS["blocks"]
    meant = folders.write(source, tmp_path / "fp8", pack, settings=settings)
    folders.check_proof(tmp_path / "fp8", meant, target, tmp_path, monkeypatch)


@pytest.mark.torch
@pytest.mark.parametrize("inside", [False, True])
def test_the_text_model_in_a_wrapper(*, inside: bool, tmp_path: Path) -> None:
    """Settings beside text_config or in it; the vision model is not quantised."""
    wrapped = wrapper_models.save(tmp_path / "wrapped", "mistral3 of ministral3")
    pack, settings = KINDS["blocks"]
    of_text = lambda name: "language_model" in name and folders.is_linear(name)  # noqa: E731
    meant = folders.write(wrapped, tmp_path / "fp8", pack, settings=settings, quantised=of_text)
    if inside:
        wrapper_models.edit_config(
            tmp_path / "fp8",
            lambda config: {
                key: value | {"quantization_config": settings} if key == "text_config" else value
                for key, value in config.items()
                if key != "quantization_config"
            },
        )
    opened = open_checkpoint(tmp_path / "fp8")
    assert "quantization_config" not in opened.config
    name = "model.layers.1.mlp.down_proj.weight"
    (own,) = (
        meant[long] for long in meant if of_text(long) and long.endswith("1.mlp.down_proj.weight")
    )
    assert torch.equal(folders.read(opened, name), own)
    prepare(tmp_path / "fp8", None)


def test_what_is_said_of_it(source: Path, tmp_path: Path, capsys: Any) -> None:
    pack, settings = KINDS["tensors, []"]
    folders.write(source, tmp_path / "fp8", pack, settings=settings)
    out, _ = run(["inspect", str(tmp_path / "fp8")], capsys)
    assert "dequantised from FP8" in out
    assert "scales of activations (14 tensors)" in out
    assert "quantization_config" not in open_checkpoint(tmp_path / "fp8").config
    folder = folders.convert(tmp_path / "fp8", "safetensors", tmp_path)
    written = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in written
    assert written["torch_dtype"] == "float32"


WRONG: dict[str, tuple[Any, str]] = {
    "no scale": (folders.drop("scale_inv"), "down_proj.weight_scale_inv is missing"),
    "a grid of another shape": (
        folders.change("scale_inv", lambda _: torch.ones(5, 2)),
        "weight_scale_inv has shape (5, 2), and the tensors beside it ask for",
    ),
    "a key that nobody reads": (
        folders.setting(rotation="hadamard"),
        "quantization_config: has rotation, which ropeconv does not read for FP8",
    ),
    "a value that is not covered": (
        folders.setting(expert_dtype="fp4"),
        "expert_dtype is 'fp4', of which ropeconv knows fp8",
    ),
    "a block of one size": (
        folders.setting(weight_block_size=[32]),
        "weight_block_size is [32], and two sizes are needed",
    ),
    "a method that nobody knows": (
        folders.setting(quant_method="fp9"),
        "no quant_method 'fp9'; near: fp8",
    ),
    "a method that is no name": (
        folders.setting(quant_method=["fp8"]),
        "no quant_method",
    ),
    "no numbers": (
        folders.change("scale_inv", lambda scale: scale[:0]),
        "has no numbers; download the checkpoint again",
    ),
    "cut short": (folders.cut_short, "not a readable safetensors file"),
    "codes in place of all": (
        lambda folder: folders.edit_tensors(
            folder, lambda all_: {n: t.float() for n, t in all_.items() if "scale" not in n}
        ),
        "says that the weights are in FP8, and none is",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused(case: str, source: Path, tmp_path: Path, capsys: Any) -> None:
    pack, settings = KINDS["blocks"]
    spoil, reason = WRONG[case]
    folders.write(source, tmp_path / "fp8", pack, settings=settings)
    spoil(tmp_path / "fp8")
    folders.check_refused(tmp_path / "fp8", reason, capsys)


def test_names_of_the_format_are_found_by_discovery() -> None:
    from ropeconv.sources.quantised._open import formats

    assert formats()["FP8"] is fp8.FORMAT
