"""gpt-oss as it was released, its experts in MXFP4: the same numbers in GGUF's own MXFP4, in other
types and in a folder, as transformers and gguf-py read both ends.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ropeconv.api import convert, verify
from ropeconv.errors import RopeconvError
from ropeconv.extend import ScalingRequest
from tests.checkpoints import save_checkpoint
from tests.to_gguf.gguf_edits import edit

L = 128
PI = ScalingRequest("linear", factor=4.0)
EXPERTS = "model.layers.{}.mlp.experts"
SETTINGS = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"],
}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random codes and exponents in place of the experts' matrices."""
    config = {"num_hidden_layers": 2, "swiglu_limit": 7.0}
    source = save_checkpoint(
        tmp_path_factory.mktemp("oss") / "model", "gpt_oss", context=L, **config
    )
    tensors = load_file(source / "model.safetensors")
    generator = torch.Generator().manual_seed(7)
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        count, inputs, outputs = tensors.pop(name).shape
        shape = (count, outputs, inputs // 32)
        tensors[f"{name}_blocks"] = torch.randint(
            0, 256, (*shape, 16), dtype=torch.uint8, generator=generator
        )
        tensors[f"{name}_scales"] = torch.randint(
            121, 125, shape, dtype=torch.uint8, generator=generator
        )
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    values = json.loads((source / "config.json").read_text())
    values["quantization_config"] = SETTINGS
    (source / "config.json").write_text(json.dumps(values))
    return source


@pytest.fixture(scope="module")
def kept(released: Path) -> Path:
    """In GGUF, its codes kept."""
    out = released.parent / "kept.gguf"
    convert(released, "gguf", out, scaling=PI, type="keep")
    return out


def meant(released: Path) -> dict[str, torch.Tensor]:
    """Name -> (experts, inputs, outputs) bfloat16 as transformers reads the codes."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    tensors = load_file(released / "model.safetensors")
    stems = [name.removesuffix("_blocks") for name in tensors if name.endswith("_blocks")]
    return {
        stem: convert_moe_packed_tensors(
            tensors[f"{stem}_blocks"], tensors[f"{stem}_scales"], dtype=torch.bfloat16
        )
        for stem in stems
    }


def in_gguf(path: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Name -> (type, numbers) as gguf-py reads them."""
    return {
        tensor.name: (
            tensor.tensor_type.name,
            gguf.dequantize(tensor.data, tensor.tensor_type),
        )
        for tensor in gguf.GGUFReader(path).tensors
    }


@pytest.mark.llama
@pytest.mark.torch
def test_codes_are_kept_bit_for_bit(released: Path, kept: Path) -> None:
    numbers = meant(released)
    found = in_gguf(kept)
    for layer in range(2):
        both = numbers[f"{EXPERTS.format(layer)}.gate_up_proj"].float().numpy()
        last = numbers[f"{EXPERTS.format(layer)}.down_proj"].float().numpy()
        wanted = {"gate": both[..., 0::2], "up": both[..., 1::2], "down": last}
        for part, values in wanted.items():
            kind, own = found[f"blk.{layer}.ffn_{part}_exps.weight"]
            assert kind == "MXFP4"
            assert np.array_equal(own, values.swapaxes(1, 2))
    report = verify(kept, tokens=2 * L)
    assert report.ok, [rung.findings for rung in report.rungs]


def swapped(values: np.ndarray) -> np.ndarray:
    """A byte's halves exchanged: what a wrong order of codes would be."""
    turned = values.copy()
    turned[..., 1:17] = turned[..., 1:17] << 4 | turned[..., 1:17] >> 4
    return turned


@pytest.mark.llama
@pytest.mark.torch
def test_codes_in_another_order_fail(kept: Path) -> None:
    tensors: dict[str, Callable[[np.ndarray], np.ndarray]] = {"blk.1.ffn_down_exps.weight": swapped}
    report = verify(edit(kept, kept.with_name("fault.gguf"), {}, tensors=tensors), tokens=L)
    assert "weights" in {rung.name for rung in report.rungs if rung.status == "fail"}


@pytest.mark.torch
def test_a_folder_has_the_numbers_in_bfloat16(released: Path, tmp_path: Path) -> None:
    convert(released, "safetensors", tmp_path / "out", scaling=PI)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    for name, values in meant(released).items():
        assert torch.equal(stored[name], values)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config
    assert verify(tmp_path / "out", tokens=L).ok


@pytest.mark.torch
def test_a_graph_computes_them(released: Path, tmp_path: Path) -> None:
    convert(released, "onnx", tmp_path / "out", scaling=PI, type="fp32")
    assert verify(tmp_path / "out", tokens=2 * L).ok


@pytest.mark.parametrize("options", [{"type": "keep"}])
def test_no_operator_has_the_codes(options: dict[str, Any], released: Path, tmp_path: Path) -> None:
    with pytest.raises(RopeconvError, match="MXFP4 codes") as refusal:
        convert(released, "onnx", tmp_path / "out", scaling=PI, **options)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()
