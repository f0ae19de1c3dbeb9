"""A tiny checkpoint that the long-context tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints import save_checkpoint


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
