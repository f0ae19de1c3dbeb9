"""What is said first of a checkpoint with several faults, and what is no fault at all: a family
before the form of its weights, and codes that do not fit in a part that is left out anyway.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ropeconv.errors import RopeconvError
from ropeconv.prepare import prepare
from ropeconv.sources.folder import open_checkpoint
from tests.command_line import refused, report, run
from tests.sources import wrapper_models
from tests.sources.quantised import folders
from tests.sources.quantised.test_fp8 import FP8, stored

UNKNOWN = {"quant_method": "hqq", "nbits": 4}
STRANGE = FP8 | {"rotation": "hadamard"}
FAMILIES = {"kimi_k25": "KimiK25ForConditionalGeneration", "deepseek_v32": "DeepseekV32ForCausalLM"}
# scales of a grid that belongs to no such matrix; none at all
MISFITS: dict[str, dict[str, torch.Tensor]] = {
    "another grid": {"weight_scale_inv": torch.ones(7, 7)},
    "no scale": {},
}


def pack(_: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
    scale = weight.abs().amax() / 448
    codes = stored(weight, scale)
    return {"weight": codes, "weight_scale": scale.reshape(1)}, codes.float() * scale


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.plain_model(tmp_path_factory.mktemp("plain") / "model")


@pytest.mark.parametrize("settings", [UNKNOWN, STRANGE, FP8], ids=["hqq", "a key", "no scale"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_comes_before_its_form(
    family: str,
    settings: dict[str, Any],
    plain: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "model"
    folders.write(plain, folder, pack, settings=settings)
    folders.drop("weight_scale")(folder)
    form = refused(["gguf", str(folder), "--dry-run"], capsys)
    assert not any(name in form for name in FAMILIES)  # of a covered family it is the fault
    other = {"model_type": family, "architectures": [FAMILIES[family]]}
    folders.edit_config(folder, lambda config: config | other)
    for target in folders.TARGETS:
        assert family in refused([target, str(folder), "--dry-run", "-o", "out.gguf"], capsys)
    said, _ = run(["inspect", str(folder), "--json"], capsys, code=1)
    assert family in said
    assert "hqq" not in said
    assert "rotation" not in said


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A text model with a vision tower, both in FP8, and the weights that are meant."""
    root = tmp_path_factory.mktemp("seeing")
    plain = wrapper_models.save(root / "plain", "mistral3")
    meant = folders.write(plain, root / "fp8", pack, settings=FP8, quantised=is_matrix)
    return root / "fp8", meant


def is_matrix(name: str) -> bool:
    return name.endswith("_proj.weight") or "multi_modal_projector.linear" in name


def misfit(tensors: dict[str, torch.Tensor], stem: str, kind: str) -> dict[str, torch.Tensor]:
    kept = {name: one for name, one in tensors.items() if name != f"{stem}.weight_scale"}
    return kept | {f"{stem}.{leaf}": one for leaf, one in MISFITS[kind].items()}


TOWERS = {
    "vision": "vision_tower.transformer.layers.0.attention.q_proj",
    "projector": "multi_modal_projector.linear_1",
}


@pytest.mark.torch
@pytest.mark.parametrize("kind", MISFITS)
@pytest.mark.parametrize("part", TOWERS)
def test_a_tower_that_does_not_fit_is_left_out(
    part: str,
    kind: str,
    seeing: tuple[Path, dict[str, torch.Tensor]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, meant = seeing
    folder = Path(shutil.copytree(source, tmp_path / "model"))
    before = report(["safetensors", str(folder), "--dry-run", "-o", "out"], capsys)["left_out"]
    stem = next(name for name in meant if name.endswith(f"{TOWERS[part]}.weight"))
    folders.edit_tensors(folder, spoil(stem.removesuffix(".weight"), kind))
    found = report(["safetensors", str(folder), "-o", str(tmp_path / "out")], capsys)
    added = len(MISFITS[kind])  # a tensor of codes counts as what it is
    assert found["left_out"][part] == before[part] + added
    assert found["dequantised"] == "FP8"
    check_text(tmp_path / "out", meant)


def spoil(stem: str, kind: str) -> Callable[[Any], Any]:
    return lambda tensors: misfit(tensors, stem, kind)


def check_text(out: Path, meant: dict[str, torch.Tensor]) -> None:
    """Every number of the text model is the one that is meant."""
    written = open_checkpoint(out)
    texts = {name: tensor for name, tensor in meant.items() if "language_model" in name}
    assert len(texts) > 10
    for name, tensor in texts.items():
        own = folders.read(written, name.partition("language_model.")[2])
        assert np.array_equal(own, tensor.float()), name


@pytest.mark.torch
@pytest.mark.parametrize("kind", MISFITS)
def test_the_text_model_has_to_fit(
    kind: str, seeing: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    source, meant = seeing
    folder = Path(shutil.copytree(source, tmp_path / "model"))
    stem = next(name for name in meant if "language_model" in name and "q_proj" in name)
    folders.edit_tensors(folder, spoil(stem.removesuffix(".weight"), kind))
    with pytest.raises(RopeconvError, match=r"q_proj\.weight"):
        prepare(folder, None)


@pytest.mark.parametrize("place", ["mtp.layers.0", "model.layers.2"])
def test_predictors_of_several_tokens_are_left_out(place: str, plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    meant = folders.write(plain, folder, pack, settings=FP8)
    codes = torch.zeros(64, 64).to(torch.float8_e4m3fn)
    own = {f"{place}.{stem}.weight": codes.clone() for stem in ("self_attn.q_proj", "eh_proj")}
    folders.edit_tensors(folder, lambda tensors: tensors | own)
    opened = open_checkpoint(folder)
    assert opened.left_out["multi-token prediction"] == len(own)
    assert folders.worst(folder, meant) == 0.0
    # a layer like the others is one that the config forgot, and its codes have to fit
    if place.startswith("model."):
        folders.edit_tensors(folder, lambda all_: {n: t for n, t in all_.items() if "eh_" not in n})
        with pytest.raises(RopeconvError, match="q_proj"):
            open_checkpoint(folder)
