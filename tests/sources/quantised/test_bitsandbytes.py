"""bitsandbytes: LLM.int8() and 4-bit blocks, with plain and with quantised largest magnitudes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ropeconv.sources.quantised import bitsandbytes
from tests.sources.quantised import folders

# QLoRA (arXiv 2305.14314), appendix E
NF4 = """
    -1 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453 -0.28444138169288635
    -0.18477343022823334 -0.09105003625154495 0 0.07958029955625534 0.16093020141124725
    0.24611230194568634 0.33791524171829224 0.44070982933044434 0.5626170039176941
    0.7229568362236023 1
"""
FP4 = "0 0.0625 8 12 4 6 2 3 0 -0.0625 -8 -12 -4 -6 -2 -3"  # twelfths, in order of the codes
BLOCK, NESTED = 64, 16
NESTED_TABLE = torch.linspace(-1, 1, 256)


def table(kind: str) -> torch.Tensor:
    values = torch.tensor([float(value) for value in (NF4 if kind == "nf4" else FP4).split()])
    return values if kind == "nf4" else values / 12


def nearest(values: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    return (values[..., None] - points).abs().argmin(-1)


def state(kind: str, shape: torch.Size, **more: Any) -> torch.Tensor:
    values = {"quant_type": kind, "blocksize": BLOCK, "dtype": "bfloat16", "shape": list(shape)}
    return torch.tensor(list(json.dumps(values | more).encode()), dtype=torch.uint8)


def pack_4(kind: str, *, nested: bool, storage: torch.dtype = torch.uint8) -> folders.Pack:
    def pack(_: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
        points = table(kind)
        blocks = weight.reshape(-1, BLOCK)
        maxima = blocks.abs().amax(1)
        parts = {"weight.absmax": maxima, "weight.quant_map": points}
        more: dict[str, Any] = {}
        if nested:
            offset = maxima.mean().item()
            groups = (maxima - offset).reshape(-1, NESTED)
            magnitudes = groups.abs().amax(1)
            codes = nearest(groups / magnitudes[:, None], NESTED_TABLE)
            maxima = (NESTED_TABLE[codes] * magnitudes[:, None]).reshape(-1) + offset
            parts |= {
                "weight.absmax": codes.reshape(-1).to(torch.uint8),
                "weight.nested_absmax": magnitudes,
                "weight.nested_quant_map": NESTED_TABLE,
            }
            more = {"nested_blocksize": NESTED, "nested_offset": offset}
            more |= {"nested_dtype": "float32"}
        chosen = nearest(blocks / maxima[:, None], points)
        meant = (points[chosen] * maxima[:, None]).reshape(weight.shape)
        halves = chosen.reshape(-1, 2)
        stream = (halves[:, 0] * 16 + halves[:, 1]).to(torch.uint8)
        parts["weight"] = stream.view(storage)[:, None]
        parts[f"weight.quant_state.bitsandbytes__{kind}"] = state(kind, weight.shape, **more)
        return parts, meant

    return pack


def pack_8(_: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
    maxima = weight.abs().amax(1)
    codes = torch.round(weight * 127 / maxima[:, None]).to(torch.int8)
    parts = {"weight": codes, "SCB": maxima, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    return parts, codes * maxima[:, None] * 7.874015718698502e-3


SETTINGS = {
    "quant_method": "bitsandbytes",
    "_load_in_4bit": True,
    "load_in_4bit": True,
    "bnb_4bit_compute_dtype": "bfloat16",
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "llm_int8_skip_modules": None,
    "llm_int8_threshold": 6.0,
}
OLDER = {"load_in_8bit": True, "llm_int8_threshold": 6.0}
KINDS: dict[str, tuple[folders.Pack, dict[str, Any]]] = {
    "nf4": (pack_4("nf4", nested=False), SETTINGS),
    "nf4, nested": (pack_4("nf4", nested=True), SETTINGS),
    "fp4": (pack_4("fp4", nested=False), SETTINGS | {"bnb_4bit_quant_type": "fp4"}),
    "fp4, nested": (pack_4("fp4", nested=True), SETTINGS | {"bnb_4bit_quant_type": "fp4"}),
    "nf4 in words": (pack_4("nf4", nested=True, storage=torch.bfloat16), SETTINGS),
    "int8": (pack_8, {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    "int8 without a method": (pack_8, OLDER),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.plain_model(tmp_path_factory.mktemp("bitsandbytes") / "plain")


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_what_the_codes_mean(kind: str, source: Path, tmp_path: Path) -> None:
    pack, settings = KINDS[kind]
    meant = folders.write(source, tmp_path / "quantised", pack, settings=settings)
    assert folders.worst(tmp_path / "quantised", meant) == 0.0


@pytest.mark.parametrize("fault", ["no offset", "other blocks", "one map for all"])
def test_planted_faults_are_seen(
    fault: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, settings = KINDS["nf4, nested"]
    meant = folders.write(source, tmp_path / "quantised", pack, settings=settings)
    make, maxima = bitsandbytes.Blocks4, bitsandbytes.Maxima
    if fault == "no offset":
        bare = lambda values, nested: maxima(values, (*nested[:3], 0.0))  # noqa: E731 - a stand-in
        monkeypatch.setattr(bitsandbytes, "Maxima", bare)
    else:
        broken = {
            "other blocks": lambda one: replace(one, block=one.block * 2),
            "one map for all": lambda one: replace(one, table=table("fp4").numpy()),
        }
        spoil = broken[fault]
        monkeypatch.setattr(bitsandbytes, "Blocks4", lambda *values: spoil(make(*values)))
    assert folders.worst(tmp_path / "quantised", meant) > 1e-3


@pytest.mark.llama
@pytest.mark.torch
@pytest.mark.parametrize("target", folders.TARGETS)
def test_conversion_and_proof(
    target: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, settings = KINDS["nf4, nested"]
    meant = folders.write(source, tmp_path / "quantised", pack, settings=settings)
    folders.check_proof(tmp_path / "quantised", meant, target, tmp_path, monkeypatch)


def of_state(old: bytes, new: bytes) -> Any:
    """Another text in the tensors of JSON."""

    def edit(tensor: torch.Tensor) -> torch.Tensor:
        text = tensor.numpy().tobytes().replace(old, new)
        return torch.tensor(list(text), dtype=torch.uint8)

    return folders.change("bitsandbytes__nf4", edit)


WRONG: dict[str, tuple[str, Any, str]] = {
    "no magnitudes": ("nf4", folders.drop(".absmax"), "weight.absmax is missing"),
    "no table": ("nf4", folders.drop(".quant_map"), "weight.quant_map is missing"),
    "no state": ("nf4", folders.drop("__nf4"), "bitsandbytes__nf4 is missing"),
    "no magnitudes of codes": (
        "nf4, nested",
        folders.drop(".nested_absmax"),
        "weight.nested_absmax is missing",
    ),
    "no table of codes": (
        "nf4, nested",
        folders.drop(".nested_quant_map"),
        "weight.nested_quant_map is missing",
    ),
    "no SCB": ("int8", folders.drop(".SCB"), ".SCB is missing"),
    "SCB of another shape": (
        "int8",
        folders.change(".SCB", lambda scale: scale[:-1]),
        "SCB has shape (63,), and the tensors beside it ask for (64,)",
    ),
    "rows in another order": (
        "int8",
        folders.change(".weight_format", lambda one: one + 1),
        "weight_format is not 0 (rows in order)",
    ),
    "another shape": (
        "nf4",
        of_state(b'"shape": [64, 96]', b'"shape": [64, 95]'),
        "shape is [64, 95], and model.layers.0.mlp.down_proj.weight has 3072 bytes",
    ),
    "another block": (
        "nf4",
        of_state(b'"blocksize": 64', b'"blocksize": 32'),
        "weight.absmax has shape (96,), and the tensors beside it ask for (192,)",
    ),
    "no JSON": ("nf4", of_state(b"{", b"["), "is not JSON"),
    "an unknown key of the state": (
        "nf4",
        of_state(b'"dtype"', b'"gamma"'),
        "has gamma, which ropeconv does not read for bitsandbytes",
    ),
    "an unknown key": ("nf4", folders.setting(bnb_4bit_gamma=2), "has bnb_4bit_gamma, which"),
    "an unknown type": (
        "nf4",
        folders.setting(bnb_4bit_quant_type="nf3"),
        "bnb_4bit_quant_type is 'nf3', of which ropeconv knows nf4, fp4",
    ),
    "cut short": ("nf4", folders.cut_short, "not a readable safetensors file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused(case: str, source: Path, tmp_path: Path, capsys: Any) -> None:
    kind, spoil, reason = WRONG[case]
    pack, settings = KINDS[kind]
    folders.write(source, tmp_path / "quantised", pack, settings=settings)
    spoil(tmp_path / "quantised")
    folders.check_refused(tmp_path / "quantised", reason, capsys)
