"""The documentation says what is: its tables are those of the code, its examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ropeconv import cli, registry
from tests.checkpoints import save_checkpoint
from tests.docs_tables import MARKED, PAGES, TABLES, filled

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_as_the_code_has_them(page: Path) -> None:
    assert page.read_text() == filled(page.read_text())


def test_every_table_stands_somewhere_and_a_stale_one_is_seen() -> None:
    found = {match["name"] for page in PAGES for match in MARKED.finditer(page.read_text())}
    assert found >= set(TABLES)
    stale = "<!-- table kinds -->\n| kind |\n<!-- end -->"
    assert filled(stale) != stale


def test_every_command_has_a_page() -> None:
    commands = cli.Commands().list_commands(None)  # type: ignore[arg-type]
    assert set(registry.targets()) <= set(commands)
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} >= set(commands)


@pytest.mark.llama
def test_the_examples_of_the_python_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(tmp_path / "model", "llama", context=256)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL)
    assert len(blocks) >= 7
    for block in blocks:
        exec(compile(block, "docs/api.md", "exec"), names)
    told = capsys.readouterr().out
    assert "dynamic scaling changes with the running length" in told
    assert (tmp_path / "model-x4.gguf").is_file()
    assert not (tmp_path / "planned.gguf").exists()
