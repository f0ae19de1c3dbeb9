"""compressed-tensors: integers in words and in bytes, 8-bit floats, symmetric and not, against
(code - zero) * scale in float32, which rounds to what 16-bit arithmetic makes of it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ropeconv.sources.quantised import compressed_tensors
from ropeconv.sources.quantised._scaled import Packed, PackedZeros
from tests.command_line import run
from tests.sources.quantised import folders
from tests.sources.quantised.integers import packed, quantise

GROUP = 32
BLOCK = [24, 40]


def index_of(weight: torch.Tensor, group: int | None) -> torch.Tensor:
    return torch.arange(weight.shape[1]) // (group or weight.shape[1])


def words(bits: int, *, group: int | None = GROUP, symmetric: bool = False) -> folders.Pack:
    def pack(_: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
        index = index_of(weight, group)
        made = quantise(weight, bits=bits, index=index, symmetric=symmetric, dtype=torch.bfloat16)
        parts = {
            "weight_packed": packed(made.codes, bits),
            "weight_scale": made.scales,
            "weight_shape": torch.tensor(weight.shape),
        }
        if not symmetric:
            parts["weight_zero_point"] = packed(made.zeros.T, bits).T
        return parts, made.meant

    return pack


def plain(*, symmetric: bool) -> folders.Pack:
    def pack(_: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
        index = index_of(weight, None)
        made = quantise(weight, bits=8, index=index, symmetric=symmetric, dtype=torch.bfloat16)
        parts = {
            "weight": (made.codes - 128).to(torch.int8),
            "weight_scale": made.scales,
            "input_scale": torch.tensor([0.5], dtype=torch.bfloat16),
        }
        if not symmetric:
            parts["weight_zero_point"] = (made.zeros - 128).to(torch.int8)
        return parts, made.meant

    return pack


def float8(grid: Any) -> folders.Pack:
    """grid: (weight) -> shape of the scales, and how often each is repeated by rows and columns."""

    def pack(_: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
        shape, high, wide = grid(weight)
        scale = (torch.rand(shape, generator=generator) * 1e-3 + 1e-3).to(torch.bfloat16)
        spread = scale.float().reshape(-1, shape[-1] if len(shape) == 2 else 1)
        spread = spread.repeat_interleave(high, 0).repeat_interleave(wide, 1)
        spread = spread[: weight.shape[0], : weight.shape[1]]
        codes = (weight / spread).to(torch.float8_e4m3fn)
        return {"weight": codes, "weight_scale": scale}, codes.float() * spread

    return pack


def blocks(weight: torch.Tensor) -> Any:
    grid = [-(-size // step) for size, step in zip(weight.shape, BLOCK, strict=True)]
    return (grid, *BLOCK)


def says(form: str, **weights: Any) -> dict[str, Any]:
    usual = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
    usual |= {"dynamic": False, "observer": "minmax", "observer_kwargs": {}, "group_size": None}
    group = {"targets": ["Linear"], "weights": usual | weights, "input_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group | {"output_activations": None}},
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "global_compression_ratio": 1.5,
        "sparsity_config": {"format": "dense", "global_sparsity": 0.1},
        "transform_config": {},
        "version": "0.12",
    }


IN_WORDS, IN_GROUPS = "pack-quantized", {"strategy": "group", "group_size": GROUP}
FLOATS = {"type": "float"}
KINDS: dict[str, tuple[folders.Pack, dict[str, Any]]] = {
    "4 bits": (words(4), says(IN_WORDS, num_bits=4, symmetric=False, **IN_GROUPS)),
    "4 bits, symmetric": (words(4, symmetric=True), says(IN_WORDS, num_bits=4, **IN_GROUPS)),
    "4 bits, rows": (words(4, group=None), says(IN_WORDS, num_bits=4, symmetric=False)),
    "2 bits": (words(2), says(IN_WORDS, num_bits=2, symmetric=False, **IN_GROUPS)),
    "8 bits in words": (words(8, group=None, symmetric=True), says(IN_WORDS)),
    "8 bits": (plain(symmetric=True), says("int-quantized")),
    "8 bits, not symmetric": (plain(symmetric=False), says("int-quantized", symmetric=False)),
    "floats of tensors": (
        float8(lambda weight: ((1,), *weight.shape)),
        says("float-quantized", strategy="tensor", **FLOATS),
    ),
    "floats of rows": (
        float8(lambda weight: ((weight.shape[0], 1), 1, weight.shape[1])),
        says("float-quantized", **FLOATS),
    ),
    "floats of blocks": (
        float8(blocks),
        says("float-quantized", strategy="block", block_structure=BLOCK, **FLOATS),
    ),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.plain_model(tmp_path_factory.mktemp("compressed") / "plain")


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_what_the_codes_mean(kind: str, source: Path, tmp_path: Path) -> None:
    pack, settings = KINDS[kind]
    meant = folders.write(source, tmp_path / "quantised", pack, settings=settings)
    assert folders.worst(tmp_path / "quantised", meant) == 0.0


@pytest.mark.parametrize("fault", ["no zero", "a zero off by one", "scales of other groups"])
def test_planted_faults_are_seen(
    fault: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, settings = KINDS["4 bits"]
    meant = folders.write(source, tmp_path / "quantised", pack, settings=settings)
    make, read = Packed, PackedZeros.read
    if fault == "a zero off by one":
        off = lambda self, *at: read(self, *at) + 1  # noqa: E731 - put in place of a method
        monkeypatch.setattr(PackedZeros, "read", off)
    else:
        broken = {
            "no zero": lambda one: replace(one, zero=None),
            "scales of other groups": lambda one: replace(
                one, scale=replace(one.scale, read=lambda *at: one.scale.read(*at)[:, ::-1])
            ),
        }
        spoil = broken[fault]
        monkeypatch.setattr(compressed_tensors, "Packed", lambda *values: spoil(make(*values)))
    assert folders.worst(tmp_path / "quantised", meant) > 1e-3


@pytest.mark.llama
@pytest.mark.torch
@pytest.mark.parametrize("target", folders.TARGETS)
def test_conversion_and_proof(
    target: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, settings = KINDS["4 bits"]
    meant = folders.write(source, tmp_path / "quantised", pack, settings=settings)
    folders.check_proof(tmp_path / "quantised", meant, target, tmp_path, monkeypatch)


def test_scales_of_activations_are_left_out(source: Path, tmp_path: Path, capsys: Any) -> None:
    pack, settings = KINDS["8 bits"]
    folders.write(source, tmp_path / "quantised", pack, settings=settings)
    out, _ = run(["inspect", str(tmp_path / "quantised")], capsys)
    assert "scales of activations (14 tensors)" in out


def of_weights(**changes: Any) -> Any:
    """Other values of how weights are quantised."""

    def change(config: dict[str, Any]) -> dict[str, Any]:
        config["quantization_config"]["config_groups"]["group_0"]["weights"] |= changes
        return config

    return lambda folder: folders.edit_config(folder, change)


WRONG: dict[str, tuple[str, Any, str]] = {
    "no scale": ("4 bits", folders.drop(".weight_scale"), ".weight_scale is missing"),
    "no zeros": ("4 bits", folders.drop(".weight_zero_point"), ".weight_zero_point is missing"),
    "no shape": ("4 bits", folders.drop(".weight_shape"), ".weight_shape is missing"),
    "no scale of integers": ("8 bits", folders.drop(".weight_scale"), "weight_scale is missing"),
    "other bits": (
        "4 bits",
        of_weights(num_bits=8),
        "num_bits is 8, and model.layers.0.mlp.down_proj.weight_packed of shape (64, 12) holds",
    ),
    "other groups": (
        "4 bits",
        of_weights(group_size=16),
        "weight_scale has shape (64, 3), and the tensors beside it ask for (64, 6)",
    ),
    "transposed scales": (
        "4 bits",
        folders.change(".weight_scale", lambda scale: scale.T),
        "weight_scale has shape (3, 64), and the tensors beside it ask for (64, 3)",
    ),
    "zeros of another shape": (
        "4 bits",
        folders.change(".weight_zero_point", lambda zeros: zeros[:-1]),
        "weight_zero_point has shape (7, 3), and the tensors beside it ask for (8, 3)",
    ),
    "an unknown key": (
        "4 bits",
        folders.setting(transform_config={"config_groups": {"u": {"type": "hadamard"}}}),
        "has transform_config, which ropeconv does not read for compressed-tensors",
    ),
    "an unknown key of weights": (
        "4 bits",
        of_weights(curve="log"),
        "config_groups.group_0.weights: has curve, which ropeconv does not read",
    ),
    "an unknown format": (
        "4 bits",
        folders.setting(format="nvfp4-pack-quantized"),
        "format is 'nvfp4-pack-quantized', of which ropeconv knows pack-quantized",
    ),
    "weights that are rounded when they run": (
        "8 bits",
        folders.setting(quantization_status="initialized"),
        "quantization_status is 'initialized', of which ropeconv knows compressed",
    ),
    "zeros left out": (
        "8 bits",
        folders.setting(sparsity_config={"format": "sparse-24-bitmask"}),
        "sparsity_config names a format in which zeros are left out",
    ),
    "no groups": ("4 bits", folders.setting(config_groups=None), "config_groups is missing"),
    "a block of one size": (
        "floats of blocks",
        of_weights(block_structure=[24]),
        "block_structure is [24], and two sizes are needed",
    ),
    "one scale for rows": (
        "8 bits",
        folders.change(".weight_scale", lambda scale: scale[0, 0]),
        "weight_scale has shape (), and the tensors beside it ask for (64, 1)",
    ),
    "floats where integers are said": (
        "8 bits",
        folders.change("_proj.weight", lambda codes: codes.to(torch.float8_e4m3fn)),
        "weight is stored as F8_E4M3, and no type is float",
    ),
    "a shape of no axes": (
        "4 bits",
        folders.change(".weight_shape", lambda shape: shape[0]),
        "weight_shape has shape (), and the tensors beside it ask for (2,)",
    ),
    "no size of groups": ("4 bits", of_weights(group_size=None), "group_size is None, and a size"),
    "cut short": ("4 bits", folders.cut_short, "not a readable safetensors file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused(case: str, source: Path, tmp_path: Path, capsys: Any) -> None:
    kind, spoil, reason = WRONG[case]
    pack, settings = KINDS[kind]
    folders.write(source, tmp_path / "quantised", pack, settings=settings)
    spoil(tmp_path / "quantised")
    folders.check_refused(tmp_path / "quantised", reason, capsys)
