"""MXFP4 as compressed-tensors packs it, and its very codes in GGUF (--type keep), by what the gguf
package reads of the file; what cannot be kept.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ropeconv
from converters.to_gguf.quant import keep
from ropeconv.extend import ScalingRequest
from ropeconv.proof.run import verify
from tests.checkpoints import save_checkpoint
from tests.command_line import refused, report
from tests.sources.quantised import folders, test_fp8
from tests.sources.quantised import test_compressed_tensors as compressed
from tests.sources.quantised import test_gptq as grouped
from tests.sources.quantised.integers import packed, quantise

PI = ScalingRequest(kind="linear", factor=2)
BLOCK = 32
# compressed_tensors/compressors/nvfp4/helpers.py, kE2M1ToFloat; the highest bit is the sign
MAGNITUDES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
HEADS = {"q": 4, "k": 2}  # of the tiny models


def pack(_: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
    """Random codes of both signs and exponents; the first code of two in the lower half."""
    rows, columns = weight.shape
    codes = torch.randint(0, 16, (rows, columns), generator=generator)
    exponents = torch.randint(118, 123, (rows, columns // BLOCK), generator=generator)
    signs = 1 - 2 * (codes >> 3)
    scales = torch.exp2(exponents.float() - 127).repeat_interleave(BLOCK, 1)
    parts = {
        "weight_packed": (codes[:, 0::2] | codes[:, 1::2] << 4).to(torch.uint8),
        "weight_scale": exponents.to(torch.uint8),
    }
    return parts, MAGNITUDES[codes & 7] * signs * scales


def says() -> dict[str, Any]:
    weights = {"type": "float", "num_bits": 4, "strategy": "group", "group_size": BLOCK}
    return compressed.says("mxfp4-pack-quantized", **weights, scale_dtype="torch.uint8")


def words_of_halves(_: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
    """Symmetric integers in words, with scales of float16."""
    index = torch.arange(weight.shape[1]) // BLOCK
    made = quantise(weight, bits=4, index=index, symmetric=True, dtype=torch.float16)
    parts = {
        "weight_packed": packed(made.codes, 4),
        "weight_scale": made.scales,
        "weight_shape": torch.tensor(weight.shape),
    }
    return parts, made.meant


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.plain_model(tmp_path_factory.mktemp("keep") / "plain")


@pytest.mark.torch
def test_every_weight_is_what_the_codes_mean(source: Path, tmp_path: Path) -> None:
    meant = folders.write(source, tmp_path / "quantised", pack, settings=says())
    assert folders.worst(tmp_path / "quantised", meant) == 0.0


Spoil = Callable[[Path], None]
WRONG: dict[str, tuple[Spoil, str]] = {
    "no scales": (folders.drop(".weight_scale"), ".weight_scale is missing"),
    "transposed scales": (
        folders.change(".weight_scale", lambda scale: scale.T),
        "down_proj.weight_scale has shape (3, 64), and the tensors beside it ask for (64, 3)",
    ),
    "groups of 16": (
        compressed.of_weights(group_size=16),
        "weight_packed is stored as U8, and no type is float of 4 bits in groups of 32",
    ),
    "a row that is no 32s": (
        folders.change(".weight_packed", lambda codes: codes[:, 1:]),
        "weight_packed of shape (64, 47) is no 32s of codes",
    ),
    "zeros": (
        lambda folder: folders.edit_tensors(
            folder,
            lambda all_: (
                all_
                | {
                    n.replace("_scale", "_zero_point"): t.clone()
                    for n, t in all_.items()
                    if "_scale" in n
                }
            ),
        ),
        "that llama has no place for: model.layers.0.mlp.down_proj.weight_zero_point",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused(case: str, source: Path, tmp_path: Path, capsys: Any) -> None:
    spoil, reason = WRONG[case]
    folders.write(source, tmp_path / "quantised", pack, settings=says())
    spoil(tmp_path / "quantised")
    folders.check_refused(tmp_path / "quantised", reason, capsys)


symmetric = grouped.gptq_pack(4, symmetric=True)
FORMS: dict[str, tuple[folders.Pack, dict[str, Any], str]] = {
    "MXFP4": (pack, says(), "MXFP4"),
    "GPTQ, 4 bits": (symmetric, grouped.says(4, sym=True), "Q4_0"),
    "GPTQ, 4 bits, rows": (
        grouped.gptq_pack(4, symmetric=True, group=-1),
        grouped.says(4, group_size=-1),
        "Q4_0",
    ),
    "GPTQ, 8 bits": (grouped.gptq_pack(8, symmetric=True), grouped.says(8), "Q8_0"),
    "compressed-tensors, 4 bits": (
        words_of_halves,
        compressed.says("pack-quantized", num_bits=4, strategy="group", group_size=BLOCK),
        "Q4_0",
    ),
}


def read(path: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Type and numbers of every tensor, by the gguf package."""
    import gguf
    from gguf.quants import dequantize

    found = {}
    for one in gguf.GGUFReader(path).tensors:
        numbers = dequantize(one.data, one.tensor_type)
        found[one.name] = (one.tensor_type.name, numbers.reshape(one.shape[::-1].tolist()))
    return found


def in_pairs(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp's order of the rows of q and k: conversion/llama.py, permute."""
    split = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return split.swapaxes(1, 2).reshape(weight.shape)


@pytest.mark.llama
@pytest.mark.torch
@pytest.mark.parametrize("form", FORMS)
def test_gguf_holds_the_very_numbers(form: str, source: Path, tmp_path: Path, capsys: Any) -> None:
    made, settings, wanted_kind = FORMS[form]
    meant = folders.write(source, tmp_path / "quantised", made, settings=settings)
    out = tmp_path / "model.gguf"
    arguments = ["gguf", str(tmp_path / "quantised"), "--type", "KEEP", "-o", str(out)]
    told = report([*arguments, "--pi-factor", "2"], capsys)
    assert f"the codes of 14 tensors, bit for bit ({wanted_kind})" in told["kept"]
    found = read(out)
    names = {"self_attn.o": "attn_output", "mlp.gate": "ffn_gate", "mlp.down": "ffn_down"}
    names |= {"mlp.up": "ffn_up"} | {f"self_attn.{x}": f"attn_{x}" for x in "qkv"}
    for name, weight in meant.items():
        if not folders.is_linear(name):
            continue
        _, _, layer, *role = name.removesuffix("_proj.weight").split(".")
        heads = HEADS.get(role[-1])
        wanted = weight if heads is None else in_pairs(weight, heads)
        kind, numbers = found[f"blk.{layer}.{names['.'.join(role)]}.weight"]
        assert kind == wanted_kind
        assert np.array_equal(numbers, wanted.numpy()), name
    assert found["token_embd.weight"][0] == "F32"  # as the folder stores it
    proof = verify(out, tokens=160, exact=True)
    assert proof.ok
    (weights,) = (rung for rung in proof.rungs if rung.name == "weights")
    assert weights.summary == "21 tensors, 21 exact"
    twins = [one for one in proof.measured if "twin" in one.artefact]
    assert twins
    assert all(one.whole.nmse < 1e-9 for one in twins)


@pytest.mark.llama
@pytest.mark.torch
def test_experts_and_another_scaling_of_the_file(tmp_path: Path) -> None:
    plain = save_checkpoint(tmp_path / "plain", "qwen3_moe", context=folders.L)
    folders.write(plain, tmp_path / "quantised", pack, settings=says())
    out = tmp_path / "model.gguf"
    ropeconv.convert(tmp_path / "quantised", "gguf", out, scaling=PI, type="keep")
    assert verify(out, tokens=160).ok
    again = tmp_path / "again.gguf"
    further = ScalingRequest(kind="linear", factor=4, on_existing="replace")
    ropeconv.convert(out, "gguf", again, scaling=further, type="keep")
    first, second = read(out), read(again)
    assert {name: kind for name, (kind, _) in first.items() if kind == "MXFP4"}
    for name, (kind, numbers) in second.items():
        assert first[name][0] == kind
        assert np.array_equal(first[name][1], numbers)


def by_block(change: Callable[[np.ndarray, np.ndarray], None], scale: int, size: int) -> Any:
    """Rows of bytes with (scales, codes) of every block changed in place."""

    def spoil(raw: np.ndarray) -> np.ndarray:
        blocks = raw.reshape(len(raw), -1, size).copy()
        change(blocks[..., :scale], blocks[..., scale:])
        return blocks.reshape(raw.shape)

    return spoil


def swap_halves(_: np.ndarray, codes: np.ndarray) -> None:
    codes[:] = codes << 4 | codes >> 4


def double_one(scales: np.ndarray, _: np.ndarray) -> None:
    scales[:, 0] += 1


def last_bit(scales: np.ndarray, _: np.ndarray) -> None:
    scales[0, 0, 0] ^= 1


def turn(scales: np.ndarray, _: np.ndarray) -> None:
    scales[:] = scales[:, ::-1].copy()


FAULTS: dict[str, tuple[str, Any]] = {
    "halves of a byte in the other order": ("MXFP4", by_block(swap_halves, 1, 17)),
    "an exponent off by one": ("MXFP4", by_block(double_one, 1, 17)),
    "exponents of other groups": ("MXFP4", by_block(turn, 1, 17)),
    "halves in the other order, integers": ("GPTQ, 4 bits", by_block(swap_halves, 2, 18)),
    "a scale in its last bit": ("GPTQ, 8 bits", by_block(last_bit, 2, 34)),
    "scales of other groups, integers": ("GPTQ, 8 bits", by_block(turn, 2, 34)),
}


@pytest.mark.llama
@pytest.mark.torch
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_turn_the_verdict(
    fault: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form, spoil = FAULTS[fault]
    made, settings, _ = FORMS[form]
    folders.write(source, tmp_path / "quantised", made, settings=settings)
    right = keep.KeptBlocks.raw_rows
    broken = lambda self, start, stop: spoil(right(self, start, stop))  # noqa: E731 - of a method
    monkeypatch.setattr(keep.KeptBlocks, "raw_rows", broken)
    out = tmp_path / "model.gguf"
    ropeconv.convert(tmp_path / "quantised", "gguf", out, scaling=PI, type="keep")
    proof = verify(out, tokens=64)
    assert {rung.name: rung.status for rung in proof.rungs}["weights"] == "fail"


def check_refused(folder: Path, reason: str, capsys: Any) -> None:
    out = folder.parent / "out.gguf"
    assert reason in refused(["gguf", str(folder), "--type", "keep", "-o", str(out)], capsys)
    assert not out.exists()


def test_what_ggml_has_no_type_for(source: Path, tmp_path: Path, capsys: Any) -> None:
    check_refused(source, "plain is not quantised, so there are no codes to keep", capsys)
    kinds = {
        "8-bit floats, for which ggml has no type; take Q4_K_M, Q8_0": test_fp8.KINDS["blocks"],
        "zero points, and Q4_0 has none; `ropeconv onnx --type keep`": grouped.KINDS["AWQ"],
        "4-bit codes in act-order, for which": grouped.KINDS["act-order"],
        "3-bit codes in groups of 32, and ggml's blocks have 4 or": grouped.KINDS["3 bits"],
        "4-bit codes in groups of 16, and ggml's blocks have 4 or 8 bits and 32": (
            grouped.gptq_pack(4, group=16, symmetric=True),
            grouped.says(4, group_size=16),
        ),
        "scales that are no float16 (": (wide_scales, grouped.says(4)),
    }
    for number, (reason, (form, settings)) in enumerate(kinds.items()):
        folder = tmp_path / f"quantised-{number}"
        folders.write(source, folder, form, settings=settings)
        check_refused(folder, f"q_proj.weight has {reason}", capsys)


def wide_scales(stem: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
    """Scales of float32 in symmetric groups."""
    parts, meant = symmetric(stem, weight, generator)
    return parts | {"scales": parts["scales"].float() * 1.0001}, meant


def test_scales_that_make_codes_infinite(source: Path, tmp_path: Path, capsys: Any) -> None:
    folders.write(source, tmp_path / "quantised", pack, settings=says())
    folders.change("up_proj.weight_scale", lambda scale: scale | 254)(tmp_path / "quantised")
    reason = "up_proj.weight, row 0, column 0: its scale is 2^12"
    check_refused(tmp_path / "quantised", reason, capsys)


def test_a_gguf_file_keeps_its_types(source: Path, tmp_path: Path, capsys: Any) -> None:
    first, second = tmp_path / "model.gguf", tmp_path / "again.gguf"
    ropeconv.convert(source, "gguf", first, type="Q8_0")
    arguments = ["gguf", str(first), "--type", "keep", "--pi-factor", "2", "-o", str(second)]
    assert report(arguments, capsys)["type"] == "Q8_0"
    assert {n: kind for n, (kind, _) in read(first).items()}.items() <= {
        n: kind for n, (kind, _) in read(second).items()
    }.items()
