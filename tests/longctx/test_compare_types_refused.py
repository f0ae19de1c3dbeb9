"""What is no file of the model, or cannot be measured, is refused in one line, before anything is
written.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ropeconv.cli import main
from ropeconv.errors import CheckpointError, ConfigError
from tests.checkpoints import save_checkpoint
from tests.longctx.finished import Files, compare_types, write_gguf

pytestmark = [pytest.mark.llama, pytest.mark.torch]


def other_scaling(files: Files, tiny: Path, folder: Path) -> list[Path]:
    return [files["F32"], write_gguf(tiny, folder / "x4.gguf", "Q4_0", factor=4.0)]


def other_source(files: Files, tiny: Path, folder: Path) -> list[Path]:
    other = save_checkpoint(folder / "other", "llama", context=256, initializer_range=0.03)
    return [files["F32"], write_gguf(other, folder / "strange.gguf", "Q4_0")]


def false_provenance(files: Files, tiny: Path, folder: Path) -> list[Path]:
    """It says x2, and llama.cpp divides by 3."""
    from gguf import GGUFReader

    changed = Path(shutil.copy(files["Q4_0"], files["Q4_0"].with_name("changed.gguf")))
    reader = GGUFReader(changed, "r+")
    field = reader.fields["llama.rope.scaling.factor"]
    field.parts[field.data[0]][0] = 3.0
    reader.data.flush()
    return [files["F32"], changed]


def checkpoint_folder(files: Files, tiny: Path, folder: Path) -> list[Path]:
    return [files["F32"], tiny]


def same_file(files: Files, tiny: Path, folder: Path) -> list[Path]:
    return [files["F32"], files["F32"].parent / "." / files["F32"].name]


def no_file(files: Files, tiny: Path, folder: Path) -> list[Path]:
    return [files["F32"], folder / "nowhere.gguf"]


def cut_off(files: Files, tiny: Path, folder: Path) -> list[Path]:
    short = files["F32"].with_name("short.gguf")
    short.write_bytes(files["F32"].read_bytes()[:-1000])
    return [short]


REFUSED = {
    other_scaling: (ConfigError, "carries another scaling than .*full.gguf .linear 256 -> 1024, "),
    other_source: (ConfigError, "made from another checkpoint than .*full.gguf"),
    false_provenance: (ConfigError, "carries another scaling than it should"),
    checkpoint_folder: (ConfigError, "a checkpoint has no runtime of its own"),
    same_file: (ConfigError, "is there twice"),
    no_file: (CheckpointError, "no such file"),
    cut_off: (CheckpointError, "short.gguf"),
}


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.__name__)
def test_what_is_no_file_of_the_model_is_refused(
    case: Any, files: Files, tiny: Path, text: Path, tmp_path: Path
) -> None:
    kind, words = REFUSED[case]
    with pytest.raises(kind, match=words) as said:
        compare_types(case(files, tiny, tmp_path), tmp_path / "out", text)
    assert "\n" not in str(said.value)
    assert not (tmp_path / "out").exists()


def test_a_file_whose_source_has_moved_is_told_where_it_is(
    files: Files, tiny: Path, text: Path, tmp_path: Path
) -> None:
    (tmp_path / "deeper").mkdir()
    moved = Path(shutil.copy(files["Q8_0"], tmp_path / "deeper" / "moved.gguf"))
    with pytest.raises(CheckpointError, match="pass --reference"):
        compare_types([moved], tmp_path / "out", text)
    found = compare_types([moved], tmp_path / "out", text, reference=str(tiny))
    assert found.results[0].kl > 0
    other = save_checkpoint(tmp_path / "other", "llama", context=256, initializer_range=0.03)
    with pytest.raises(CheckpointError, match=r"is not the checkpoint that moved\.gguf was made"):
        compare_types([moved], tmp_path / "out", text, reference=str(other))


def test_lengths_and_texts_that_do_not_serve(files: Files, text: Path, tmp_path: Path) -> None:
    paths, out = [files["F32"]], tmp_path / "out"
    with pytest.raises(ConfigError, match="--tokens 513: give 2 to 512"):
        compare_types(paths, out, text, tokens=513)
    with pytest.raises(ConfigError, match="--tokens 15: give 16 or more"):
        compare_types(paths, out, text, tokens=15)
    short = tmp_path / "short.txt"
    short.write_text("a few words")
    with pytest.raises(CheckpointError, match="512 are needed; give a longer text"):
        compare_types(paths, out, short)
    assert not out.exists()


WRONG_OPTIONS = {
    ("--types", "a.gguf", "--methods", "pi"): "--methods belongs to a comparison of methods",
    ("--types", "a.gguf", "--passkeys", "8"): "--passkeys belongs to a comparison of methods",
    ("model", "--max-bytes", "2G"): "--max-bytes belongs to --types",
    ("model", "--reference", "model"): "--reference belongs to --types",
    ("model", "a.gguf"): "a.gguf: compare takes one SOURCE",
}


@pytest.mark.parametrize("arguments", WRONG_OPTIONS)
def test_options_of_the_other_comparison_are_refused(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main(["compare", *arguments])
    assert done.value.code == 2
    assert WRONG_OPTIONS[arguments] in capsys.readouterr().err.splitlines()[-1]
