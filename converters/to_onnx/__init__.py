"""ONNX for onnxruntime and everything that is built on it.

the decoder: blocks.py · how a profile says it: profiles.py, graph.py · rotary embedding: rotary.py · weights: weights.py,
types.py, pack.py · the folder: emit.py, package.py, write.py · reading: source.py, artefact.py · running: run.py
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ropeconv.arch._base import Architecture
from ropeconv.model import Model
from ropeconv.target import Artefact, Carried, Emitted, Target


def _recognizes(path: Path) -> bool:
    return path.suffix == ".onnx" or (path / "onnx" / "model.onnx").is_file()


def _carry(model: Model, bake: str) -> Carried:
    from converters.to_onnx.rotary import encode

    return encode(model, bake).carried


def _emit(model: Model, out: Path, **options: Any) -> Emitted:
    from converters.to_onnx.emit import Options, emit

    huggingface, progress = options.pop("huggingface"), options.pop("progress", None)
    return emit(model, out, huggingface=huggingface, options=Options(**options), progress=progress)


def _open_artefact(
    path: Path,
    families: Mapping[str, Architecture],  # noqa: ARG001 - the contract's signature
    provider: str = "cpu",
) -> Artefact:
    from converters.to_onnx.artefact import open_artefact

    return open_artefact(path, provider=provider)


TARGET = Target(
    name="onnx",
    recognizes=_recognizes,
    carry=_carry,
    emit=_emit,
    open_artefact=_open_artefact,
    providers=("cpu", "cuda"),
    runtimes=("onnxruntime", "onnxruntime-genai"),
)
"""The declaration that the registry finds."""
