"""A tiny checkpoint that the long-context tests share, and finished files of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints import save_checkpoint
from tests.longctx.finished import Files, write_gguf, write_onnx


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random llama of two layers, trained context 256."""
    return save_checkpoint(tmp_path_factory.mktemp("longctx") / "tiny", "llama", context=256)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of some thousand tokens."""
    from pydoc_data.topics import topics

    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("\n".join(topics[name] for name in sorted(topics))[:12_000])
    return file


@pytest.fixture(scope="session")
def files(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """One model, twice as long, in five types."""
    folder = tmp_path_factory.mktemp("files")
    names = {"F32": "full.gguf", "Q8_0": "eight.gguf", "Q4_0": "four.gguf"}
    found = {kind: write_gguf(tiny, folder / name, kind) for kind, name in names.items()}
    return found | {
        kind: write_onnx(tiny, folder / f"{kind}-onnx", kind) for kind in ("fp32", "int4")
    }
