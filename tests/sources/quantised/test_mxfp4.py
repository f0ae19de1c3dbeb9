"""MXFP4 against transformers' own dequantisation of gpt-oss' experts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ropeconv.errors import RopeconvError
from ropeconv.kit.views import Entry
from ropeconv.sources.folder import open_checkpoint
from ropeconv.sources.quantised import _codes, mxfp4
from tests.sources.quantised import folders

NAME = "model.layers.0.mlp.experts"
EXPERTS, OUTPUTS, GROUPS = 3, 10, 2
SETTINGS = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}


def stored() -> dict[str, torch.Tensor]:
    """Every pair of codes, and scales of both signs, under the names of gpt-oss."""
    generator = torch.Generator().manual_seed(3)
    shape = (EXPERTS, OUTPUTS, GROUPS, 16)
    blocks = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    exponents = torch.randint(90, 150, shape[:3], dtype=torch.uint8, generator=generator)
    return {f"{NAME}.down_proj_blocks": blocks, f"{NAME}.down_proj_scales": exponents}


def folder(path: Path, tensors: dict[str, torch.Tensor], settings: Any = SETTINGS) -> Path:
    path.mkdir()
    rest = {"model.norm.weight": torch.ones(4), f"{NAME}.down_proj_bias": torch.ones(3, 8)}
    save_file(tensors | rest, path / "model.safetensors", metadata={"format": "pt"})
    # of a covered family: nobody looks at the numbers of another
    config = {"model_type": "llama", "quantization_config": settings}
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.torch
def test_every_number_is_transformers_own(tmp_path: Path) -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    blocks, exponents = stored().values()
    meant = convert_moe_packed_tensors(blocks, exponents, dtype=torch.bfloat16)
    opened = open_checkpoint(folder(tmp_path / "model", stored()))
    assert set(opened.tensors) == {
        "model.norm.weight",
        f"{NAME}.down_proj",
        f"{NAME}.down_proj_bias",
    }
    tensor = opened.tensors[f"{NAME}.down_proj"]
    assert (tensor.shape, tensor.dtype) == ((EXPERTS, GROUPS * 32, OUTPUTS), "BF16")
    assert torch.equal(folders.read(opened, f"{NAME}.down_proj"), meant.float())
    one = Entry(tensor, 1).rows(5, 9).astype("float32")
    assert torch.equal(torch.from_numpy(one), meant[1, 5:9].float())


def test_halves_of_a_byte_in_the_other_order_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    read = _codes.unpack
    swapped = lambda packed, *rest: read(packed << 4 | packed >> 4, *rest)  # noqa: E731 - a stand-in
    monkeypatch.setattr(mxfp4, "unpack", swapped)
    opened = open_checkpoint(folder(tmp_path / "model", stored()))
    meant = convert_moe_packed_tensors(*stored().values(), dtype=torch.bfloat16)
    assert not torch.equal(folders.read(opened, f"{NAME}.down_proj"), meant.float())


Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
WRONG: dict[str, tuple[Change, dict[str, Any], str]] = {
    "no scales": (
        lambda all_: {n: t for n, t in all_.items() if "scales" not in n},
        {},
        "down_proj_scales is missing",
    ),
    "scales of another shape": (
        lambda all_: {n: t.transpose(0, 1) if "scales" in n else t for n, t in all_.items()},
        {},
        "down_proj_scales has shape (10, 3, 2)",
    ),
    "blocks of another size": (
        lambda all_: {n: t[..., :8] if "blocks" in n else t for n, t in all_.items()},
        {},
        "down_proj_blocks has shape (3, 10, 2, 8)",
    ),
    "an unknown key": (lambda all_: all_, {"swizzle": "hopper"}, "has swizzle, which"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused(case: str, tmp_path: Path) -> None:
    change, more, reason = WRONG[case]
    tensors = {name: tensor.contiguous() for name, tensor in change(stored()).items()}
    path = folder(tmp_path / "model", tensors, SETTINGS | more)
    with pytest.raises(RopeconvError) as caught:
        open_checkpoint(path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
