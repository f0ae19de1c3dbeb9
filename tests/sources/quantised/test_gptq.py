"""GPTQ, AutoRound's forms of it, and AWQ: packed bit by bit, against (code - zero) * scale in
float32, which rounds to what 16-bit arithmetic makes of it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ropeconv.prepare import prepare
from ropeconv.sources.folder import open_checkpoint
from ropeconv.sources.quantised import gptq
from tests.sources.quantised import folders
from tests.sources.quantised.integers import Grouped, packed, quantise

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # output of each code of a word
GROUP = 32


def neighbours(inputs: int, group: int) -> torch.Tensor:
    """The group of every input, in order."""
    return torch.arange(inputs) // (inputs if group == -1 else group)


def stored(made: Grouped, bits: int, *, less: int) -> dict[str, torch.Tensor]:
    """GPTQ's tensors: zeros less `less`, modulo 2^bits."""
    return {
        "qweight": packed(made.codes, bits).T,
        "qzeros": packed(((made.zeros - less) % 2**bits).T, bits),
        "scales": made.scales.T,
        "g_idx": made.index.to(torch.int32),
    }


def gptq_pack(
    bits: int,
    *,
    group: int = GROUP,
    symmetric: bool = False,
    less: int = 1,
    shuffled: bool = False,
    g_idx: bool = True,
) -> folders.Pack:
    def pack(_: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
        index = neighbours(weight.shape[1], group)
        if shuffled:
            index = index[torch.randperm(len(index), generator=generator)]
        made = quantise(weight, bits=bits, index=index, symmetric=symmetric)
        parts = stored(made, bits, less=less)
        return {k: v for k, v in parts.items() if g_idx or k != "g_idx"}, made.meant

    return pack


def awq_pack(_: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
    made = quantise(weight, bits=4, index=neighbours(weight.shape[1], GROUP))

    def in_order(codes: torch.Tensor) -> torch.Tensor:
        return packed(codes.reshape(len(codes), -1, 8)[..., AWQ_ORDER].reshape(codes.shape), 4)

    parts = {
        "qweight": in_order(made.codes.T.contiguous()),
        "qzeros": in_order(made.zeros.T.contiguous()),
        "scales": made.scales.T,
    }
    return parts, made.meant


def says(bits: int, **more: Any) -> dict[str, Any]:
    """GPTQ's settings."""
    usual = {"quant_method": "gptq", "bits": bits, "group_size": GROUP, "desc_act": False}
    return usual | {"sym": False, "damp_percent": 0.01, "meta": {"quantizer": "x:1"}} | more


ROUND = {"quant_method": "auto-round", "bits": 4, "group_size": GROUP, "data_type": "int"}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True}
AWQ |= {"version": "gemm", "modules_to_not_convert": None}
KINDS: dict[str, tuple[folders.Pack, dict[str, Any]]] = {
    "2 bits": (gptq_pack(2), says(2)),
    "3 bits": (gptq_pack(3), says(3)),
    "4 bits": (gptq_pack(4), says(4)),
    "8 bits": (gptq_pack(8), says(8)),
    "symmetric": (gptq_pack(4, symmetric=True), says(4, sym=True)),
    "one group": (gptq_pack(4, group=-1), says(4, group_size=-1)),
    "act-order": (gptq_pack(4, shuffled=True), says(4, desc_act=True)),
    "act-order, 3 bits": (gptq_pack(3, shuffled=True), says(3, desc_act=True)),
    "v2": (gptq_pack(4, less=0), says(4, checkpoint_format="gptq_v2")),
    "v1, said": (gptq_pack(4), says(4, checkpoint_format="gptq")),
    "no g_idx": (gptq_pack(4, g_idx=False), says(4)),
    "bits of some": (gptq_pack(8), says(4, dynamic={r"+:.*proj": {"bits": 8}})),
    "AutoRound, bits of some": (
        gptq_pack(2),
        ROUND | {"extra_config": {"model.layers.0.mlp.up_proj": {"bits": 2, "act_bits": 16}}},
    ),
    "AutoRound": (gptq_pack(4, g_idx=False), ROUND),
    "AutoRound, v2": (gptq_pack(4, less=0), ROUND | {"packing_format": "auto_round:gptqmodel"}),
    "AutoRound, AWQ": (awq_pack, ROUND | {"packing_format": "auto_round:auto_awq"}),
    "AWQ": (awq_pack, AWQ),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.plain_model(tmp_path_factory.mktemp("gptq") / "plain")


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_what_the_packing_means(kind: str, source: Path, tmp_path: Path) -> None:
    pack, settings = KINDS[kind]
    meant = folders.write(source, tmp_path / "quantised", pack, settings=settings)
    assert folders.worst(tmp_path / "quantised", meant) == 0.0


def test_zeros_that_wrap_around(source: Path, tmp_path: Path) -> None:
    """A zero of 0 is stored as 15, which is 0 less one, and not as 16's."""

    def pack(_: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
        made = quantise(weight.abs(), bits=4, index=neighbours(weight.shape[1], GROUP))
        assert not made.zeros.any()
        return stored(made, 4, less=1), made.meant

    meant = folders.write(source, tmp_path / "quantised", pack, settings=says(4))
    assert folders.worst(tmp_path / "quantised", meant) == 0.0


def older(folder: Path, **more: Any) -> None:
    """As in 2023: settings in a file of their own, none in config.json."""
    values = {"bits": 4, "group_size": GROUP, "desc_act": False, "sym": False, "damp_percent": 0.1}
    values |= {"true_sequential": True, "model_name_or_path": "x", "static_groups": False}
    (folder / "quantize_config.json").write_text(json.dumps(values | more))


@pytest.mark.torch
def test_gptq_of_2023(source: Path, tmp_path: Path, capsys: Any) -> None:
    pack, _ = KINDS["4 bits"]
    folder = tmp_path / "quantised"
    meant = folders.write(source, folder, pack, settings=None)
    folders.check_refused(folder, "is there: quantised weights", capsys)
    older(folder)
    assert folders.worst(folder, meant) == 0.0
    own = open_checkpoint(folder).fingerprint
    older(folder, damp_percent=0.2)
    assert open_checkpoint(folder).fingerprint != own  # config.json and tensors are the same
    older(folder, rotation="hadamard")
    folders.check_refused(folder, "quantize_config.json: has rotation", capsys)
    (folder / "quantize_config.json").write_text("{")
    folders.check_refused(folder, "quantize_config.json: not readable as JSON", capsys)


def test_biases_of_zeros_that_the_family_has_not(source: Path, tmp_path: Path, capsys: Any) -> None:
    def pack(stem: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
        parts, meant = gptq_pack(4)(stem, weight, generator)
        return parts | {"bias": torch.zeros(len(weight), dtype=torch.float16)}, meant

    folder = tmp_path / "quantised"
    folders.write(source, folder, pack, settings=says(4))
    prepare(folder, None)
    folders.change("up_proj.bias", lambda bias: bias + 1e-3)(folder)
    folders.check_refused(folder, "2 tensors that llama has no place for", capsys)


@pytest.mark.torch
def test_awq_of_2023(source: Path, tmp_path: Path) -> None:
    meant = folders.write(source, tmp_path / "quantised", awq_pack, settings=None)
    values = {"zero_point": True, "q_group_size": GROUP, "w_bit": 4, "version": "GEMM"}
    (tmp_path / "quantised" / "quant_config.json").write_text(json.dumps(values))
    assert folders.worst(tmp_path / "quantised", meant) == 0.0


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["act-order", "AWQ"])
def test_codes_in_a_pytorch_archive(kind: str, source: Path, tmp_path: Path) -> None:
    pack, settings = KINDS[kind]
    meant = folders.write(source, tmp_path / "quantised", pack, settings=settings)
    folders.as_archive(tmp_path / "quantised")
    assert folders.worst(tmp_path / "quantised", meant) == 0.0


@pytest.mark.parametrize("fault", ["zero", "order", "group"])
def test_planted_faults_are_seen(
    fault: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, settings = KINDS["act-order"]
    meant = folders.write(source, tmp_path / "quantised", pack, settings=settings)
    make = gptq.Packed
    broken = {
        "zero": lambda packed: replace(packed, add=0),
        "order": lambda packed: replace(packed, columns=GROUP),
        "group": lambda packed: replace(packed, columns=packed.columns[::-1].copy()),
    }
    monkeypatch.setattr(gptq, "Packed", lambda *values: broken[fault](make(*values)))
    assert folders.worst(tmp_path / "quantised", meant) > 1e-3


@pytest.mark.llama
@pytest.mark.torch
@pytest.mark.parametrize("target", folders.TARGETS)
@pytest.mark.parametrize("kind", ["act-order", "AWQ"])
def test_conversion_and_proof(
    kind: str, target: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, settings = KINDS[kind]
    meant = folders.write(source, tmp_path / "quantised", pack, settings=settings)
    folders.check_proof(tmp_path / "quantised", meant, target, tmp_path, monkeypatch)


WRONG: dict[str, tuple[str, Any, str]] = {
    "no scales": ("4 bits", folders.drop(".scales"), ".scales is missing"),
    "no zeros": ("4 bits", folders.drop(".qzeros"), ".qzeros is missing"),
    "no order": ("act-order", folders.drop(".g_idx"), ".g_idx is missing"),
    "no zeros, AWQ": ("AWQ", folders.drop(".qzeros"), ".qzeros is missing"),
    "other bits": (
        "4 bits",
        folders.setting(bits=3),
        "bits is 3, and model.layers.0.mlp.down_proj.qzeros of shape (3, 8) beside scales of",
    ),
    "bits that nobody packs": ("4 bits", folders.setting(bits=5), "bits is 5, and"),
    "other groups": (
        "4 bits",
        folders.setting(group_size=16),
        "group_size is 16, and model.layers.0.mlp.down_proj has 3 groups of 96 inputs",
    ),
    "no size of groups": ("AWQ", folders.setting(group_size=None), "group_size is missing, and"),
    "a group that is not there": (
        "act-order",
        folders.change(".g_idx", lambda index: index + 1),
        "g_idx has 1 to 3, and there are 3 groups",
    ),
    "order that desc_act denies": (
        "act-order",
        folders.setting(desc_act=False),
        "desc_act is not true, and model.layers.0.mlp.down_proj.g_idx is out of order",
    ),
    "scales of another shape": (
        "4 bits",
        folders.change(".scales", lambda scales: scales.T),
        "qzeros",
    ),
    "codes of another shape": (
        "AWQ",
        folders.change(".qweight", lambda codes: codes.T),
        "group_size is 32, and model.layers.0.mlp.down_proj has 3 groups of 8 inputs",
    ),
    "an unknown key": ("4 bits", folders.setting(rotation="hadamard"), "has rotation, which"),
    "an unknown form": (
        "4 bits",
        folders.setting(checkpoint_format="marlin"),
        "checkpoint_format is 'marlin', of which ropeconv knows gptq, gptq_v2",
    ),
    "two forms": (
        "4 bits",
        folders.setting(checkpoint_format="gptq_v2", format="gptq"),
        "checkpoint_format and format differ (gptq, gptq_v2)",
    ),
    "another packing": (
        "AWQ",
        folders.setting(version="gemv"),
        "version is 'gemv', of which ropeconv knows gemm, GEMM",
    ),
    "an unknown packing of AutoRound's": (
        "AutoRound",
        folders.setting(packing_format="auto_round:fp8_static"),
        "packing_format is 'auto_round:fp8_static', of which",
    ),
    "other keys of some": (
        "bits of some",
        folders.setting(dynamic={"+:.*": {"rotation": "x"}}),
        "dynamic +:.* has rotation, which ropeconv does not read",
    ),
    "bits in words": (
        "bits of some",
        folders.setting(bits="4"),
        "bits is '4', which is no integer",
    ),
    "cut short": ("4 bits", folders.cut_short, "not a readable safetensors file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused(case: str, source: Path, tmp_path: Path, capsys: Any) -> None:
    kind, spoil, reason = WRONG[case]
    pack, settings = KINDS[kind]
    folders.write(source, tmp_path / "quantised", pack, settings=settings)
    spoil(tmp_path / "quantised")
    folders.check_refused(tmp_path / "quantised", reason, capsys)
