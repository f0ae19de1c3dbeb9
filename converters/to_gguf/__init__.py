"""GGUF for llama.cpp.

names and layouts: families.py · rotary embedding: scaling.py · other keys: metadata.py, tokenizer.py · tensor types:
types.py, mix.py · what goes where: plan.py, rows.py · bytes: container.py, ggml.py, write.py · reading: source.py ·
running: run.py
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ropeconv.arch._base import Architecture
from ropeconv.model import Checkpoint, Model
from ropeconv.target import Artefact, Carried, Emitted, Raw, Target


def _recognizes(path: Path) -> bool:
    from converters.to_gguf.source import recognizes

    return recognizes(path)


def _carry(model: Model, bake: str) -> Carried:
    from converters.to_gguf.scaling import encode

    return encode(model, bake).carried


def _emit(model: Model, out: Path | None, **options: Any) -> Emitted:
    from converters.to_gguf.emit import Options, emit

    huggingface, progress = options.pop("huggingface"), options.pop("progress", None)
    return emit(model, out, huggingface=huggingface, options=Options(**options), progress=progress)


def _open_checkpoint(path: Path, families: Mapping[str, Architecture], **options: Any) -> Checkpoint:
    from converters.to_gguf.source import open_checkpoint

    return open_checkpoint(path, families, **options)


def _open_raw(path: Path) -> Raw:
    from converters.to_gguf.artefact import open_raw

    return open_raw(path)


def _open_artefact(path: Path, families: Mapping[str, Architecture]) -> Artefact:
    from converters.to_gguf.artefact import open_artefact

    return open_artefact(path, families)


TARGET = Target(
    name="gguf",
    recognizes=_recognizes,
    carry=_carry,
    emit=_emit,
    open_artefact=_open_artefact,
    open_checkpoint=_open_checkpoint,
    open_raw=_open_raw,
    runtimes=("llama.cpp", "llama.cpp's server"),
)
