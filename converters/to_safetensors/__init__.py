"""A Hugging Face folder for PyTorch.

rotary embedding: carry.py, config.py · what goes where: plan.py · bytes: write.py · the folder: emit.py ·
reading and running: artefact.py, run.py
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ropeconv.arch._base import Architecture
from ropeconv.model import Model
from ropeconv.target import Artefact, Carried, Emitted, Target


def _recognizes(path: Path) -> bool:
    weights = ("model.safetensors", "model.safetensors.index.json")
    return (path / "config.json").is_file() and any((path / name).is_file() for name in weights)


def _carry(model: Model, bake: str) -> Carried:
    from converters.to_safetensors.carry import carry

    return carry(model, bake).carried


def _emit(model: Model, out: Path, **options: Any) -> Emitted:
    from converters.to_safetensors.emit import Options, emit

    huggingface, progress = options.pop("huggingface"), options.pop("progress", None)
    return emit(model, out, huggingface=huggingface, options=Options(**options), progress=progress)


def _open_artefact(path: Path, families: Mapping[str, Architecture]) -> Artefact:  # noqa: ARG001 - the contract's signature
    from converters.to_safetensors.artefact import open_artefact

    return open_artefact(path)


TARGET = Target(
    name="safetensors",
    recognizes=_recognizes,
    carry=_carry,
    emit=_emit,
    open_artefact=_open_artefact,
    runtimes=("transformers", "vLLM", "SGLang", "mlx-lm"),
)
