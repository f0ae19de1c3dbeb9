"""Folders of quantised tiny models: the layout of each format written with torch, bit by bit, and
the weights that it means by the rule of the library that maintains it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ropeconv.kit.slabs import cut
from ropeconv.model import Checkpoint
from ropeconv.proof import structure
from ropeconv.proof.run import verify
from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import save_checkpoint
from tests.command_line import refused

L = 128
# (module, weight, generator) -> (what is stored: last part of a name -> tensor, the weight meant)
Pack = Callable[[str, torch.Tensor, torch.Generator], tuple[dict[str, torch.Tensor], torch.Tensor]]
TARGETS = ("gguf", "onnx", "safetensors")


def plain_model(folder: Path) -> Path:
    """The tiny llama that is quantised; its head is a linear layer of its own."""
    return save_checkpoint(folder, "llama", context=L)


def is_linear(name: str) -> bool:
    """Whether a tensor is the weight of a layer's linear module."""
    return name.endswith("_proj.weight")


def write(
    source: Path,
    out: Path,
    pack: Pack,
    *,
    settings: Any,
    key: str = "quantization_config",
    quantised: Callable[[str], bool] = is_linear,
    more: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """A copy of `source` whose linear weights are `pack`ed; returns the weights that it means."""
    shutil.copytree(source, out)
    generator = torch.Generator().manual_seed(7)
    stored: dict[str, torch.Tensor] = dict(more or {})
    meant = {}
    for name, weight in load_file(source / "model.safetensors").items():
        if not quantised(name):
            stored[name] = meant[name] = weight
            continue
        stem = name.removesuffix(".weight")
        parts, meant[name] = pack(stem, weight.float(), generator)
        stored |= {f"{stem}.{leaf}": part.clone().contiguous() for leaf, part in parts.items()}
    save_file(stored, out / "model.safetensors", metadata={"format": "pt"})
    edit_config(out, lambda config: config | ({} if settings is None else {key: settings}))
    return meant


def meant_folder(source: Path, out: Path, meant: Mapping[str, torch.Tensor]) -> Path:
    """An ordinary checkpoint with these weights, for the proof to judge by."""
    shutil.copytree(source, out)
    edit_config(out, lambda config: {k: v for k, v in config.items() if not k.startswith("quant")})
    tensors = {name: tensor.float().contiguous() for name, tensor in meant.items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


def edit_config(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def edit_settings(folder: Path, **changes: Any) -> None:
    """Other values in `quantization_config`; None removes a key."""
    key = "quantization_config"

    def change(config: dict[str, Any]) -> dict[str, Any]:
        values = config[key] | changes
        return config | {key: {k: v for k, v in values.items() if v is not None}}

    edit_config(folder, change)


def edit_tensors(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    """The weights file with other tensors."""
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    changed = {name: tensor.contiguous() for name, tensor in change(tensors).items()}
    save_file(changed, path, metadata={"format": "pt"})


def as_archive(folder: Path) -> None:
    """The weights in a `torch.save` archive."""
    path = folder / "model.safetensors"
    torch.save(load_file(path), folder / "pytorch_model.bin")
    path.unlink()


def read(checkpoint: Checkpoint, name: str, *, values: int = 1000) -> torch.Tensor:
    """A tensor's numbers, a few rows at a time, in float32."""
    tensor = checkpoint.tensors[name]
    slabs = [tensor.rows(*at).astype(np.float32) for at in cut(tensor.shape, values=values)]
    return torch.from_numpy(np.concatenate(slabs).reshape(tensor.shape))


def worst(folder: Path, meant: Mapping[str, torch.Tensor]) -> float:
    """The largest distance of any weight from what is meant."""
    checkpoint = open_checkpoint(folder)
    assert checkpoint.tensors.keys() == meant.keys()
    apart = [
        (read(checkpoint, name).double() - tensor.double()).abs().max().item()
        for name, tensor in meant.items()
    ]
    return max(apart)


def convert(source: Path, target: str, out: Path) -> Path:
    """`source` scaled and written for `target` in full precision."""
    from ropeconv.cli import main

    path = out / ("out.gguf" if target == "gguf" else f"out-{target}")
    types = {"gguf": ["--type", "F32"], "onnx": ["--type", "fp32"], "safetensors": []}
    arguments = [target, str(source), "--pi-factor", "2", "-o", str(path), *types[target]]
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert done.value.code == 0
    return path


def check_proof(
    source: Path,
    meant: Mapping[str, torch.Tensor],
    target: str,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is made of `source` is proven, by its own numbers and by those that are meant; other
    numbers than those turn the verdict.
    """
    path = convert(source, target, out)
    if target == "gguf":
        assert verify(path, tokens=160).ok
    plain = meant_folder(source, out / "plain", meant)
    # the file was made from another folder than the one it is judged by
    monkeypatch.setattr(structure, "_check_fingerprint", lambda *_: None)
    assert verify(path, reference=plain, tokens=160).ok
    if target != "gguf":
        return
    wrong = {name: w * 1.01 if "q_proj" in name else w for name, w in meant.items()}
    other = meant_folder(source, out / "wrong", wrong)
    assert not verify(path, reference=other, tokens=160).ok


def drop(leaf: str) -> Callable[[Path], None]:
    """Take the tensors away whose names end so."""

    def change(folder: Path) -> None:
        edit_tensors(folder, lambda all_: {n: t for n, t in all_.items() if not n.endswith(leaf)})

    return change


def change(leaf: str, edit: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    """Put others in place of the tensors whose names end so."""

    def spoil(folder: Path) -> None:
        edit_tensors(
            folder, lambda all_: {n: edit(t) if n.endswith(leaf) else t for n, t in all_.items()}
        )

    return spoil


def setting(**changes: Any) -> Callable[[Path], None]:
    """Other values in `quantization_config`."""
    return lambda folder: edit_settings(folder, **changes)


def cut_short(folder: Path) -> None:
    """The weights file without its end."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def check_refused(folder: Path, reason: str, capsys: Any) -> None:
    """One line with the reason, and nothing written."""
    out = folder.parent / "out.gguf"
    assert reason in refused(["gguf", str(folder), "-o", str(out)], capsys)
    assert not out.exists()
