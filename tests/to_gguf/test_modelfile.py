"""The Modelfile beside a file: what it names is there, and the context is the file's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints import save_checkpoint
from tests.command_line import refused, report

pytestmark = pytest.mark.torch
L = 128


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_checkpoint(tmp_path_factory.mktemp("source") / "model", "llama", context=L))


def test_it_names_the_file_and_its_context(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import gguf

    out = tmp_path / "a model.gguf"
    found = report(["gguf", source, "--pi-factor", "4", "--modelfile", "-o", str(out)], capsys)
    written = tmp_path / "a model.Modelfile"
    assert found["files"] == [str(out), str(written)]
    said = dict(line.split(" ", 1) for line in written.read_text().splitlines())
    named = written.parent / said["FROM"]
    fields = gguf.GGUFReader(named).fields
    assert said["PARAMETER"] == f"num_ctx {fields['llama.context_length'].contents()}"
    assert fields["llama.context_length"].contents() == 4 * L


def test_another_is_not_replaced_and_a_dry_run_writes_none(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, kept = tmp_path / "out.gguf", tmp_path / "out.Modelfile"
    kept.write_text("FROM mine\n")
    command = ["gguf", source, "--modelfile", "-o", str(out)]
    assert "out.Modelfile exists; pass --force" in refused(command, capsys)
    report([*command, "--force", "--dry-run"], capsys)
    assert (kept.read_text(), out.exists()) == ("FROM mine\n", False)
    report([*command, "--force"], capsys)
    assert kept.read_text().startswith("FROM ./out.gguf\n")


def test_a_model_of_several_files_is_refused(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.gguf"
    command = ["gguf", source, "--modelfile", "--split-max-size", "100K", "-o", str(out)]
    assert "Ollama takes a model of one file" in refused(command, capsys)
    assert list(tmp_path.iterdir()) == []
