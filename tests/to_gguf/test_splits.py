"""Split models: sets that replace one another, parts named as sources and outputs, files that are
no set.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf.read.artefact import open_artefact
from converters.to_gguf.run import logits
from ropeconv.errors import CheckpointError, OutputError, RopeconvError
from ropeconv.extend import ScalingRequest
from ropeconv.prepare import prepare
from ropeconv.proof.run import verify
from tests.checkpoints import save_checkpoint
from tests.families import random_ids
from tests.to_gguf import converting
from tests.to_gguf.converting import PI

L = 256
THREE, TWO = 200_000, 300_000  # bytes a part: this model makes so many parts of it


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("source") / "model", "llama", context=L)


def convert(
    source: Path, out: Path, request: ScalingRequest | None = None, **options: Any
) -> list[str]:
    """Names of the files written, F32."""
    kind = {} if source.is_file() else {"type": "F32"}
    done = converting.convert(source, out, request, **kind, **options)
    return [path.name for path in done.files]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def parts(count: int, stem: str = "m") -> list[str]:
    return [f"{stem}-{n:05d}-of-{count:05d}.gguf" for n in range(1, count + 1)]


def test_a_new_set_replaces_the_old_one(model: Path, tmp_path: Path) -> None:
    assert convert(model, tmp_path / "m.gguf", split=THREE) == parts(3)
    convert(model, tmp_path / "m-b.gguf", split=THREE)  # a longer name
    # by its header it is no such part
    shutil.copy(tmp_path / "m-00001-of-00003.gguf", tmp_path / "m-00005-of-00009.gguf")
    (tmp_path / "m-00001-of-00007.gguf").write_text("mine")
    kept = [*parts(3, "m-b"), "m-00001-of-00007.gguf", "m-00005-of-00009.gguf"]
    before = names(tmp_path)
    with pytest.raises(OutputError, match=r"m-00001-of-00003\.gguf exists; pass --force"):
        convert(model, tmp_path / "m.gguf", split=TWO)
    assert names(tmp_path) == before
    assert convert(model, tmp_path / "m.gguf", split=TWO, force=True) == parts(2)
    assert names(tmp_path) == sorted([*parts(2), *kept])
    assert convert(model, tmp_path / "m.gguf", force=True) == ["m.gguf"]
    assert names(tmp_path) == sorted(["m.gguf", *kept])


def test_an_old_set_outlives_a_failure(model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    convert(model, tmp_path / "m.gguf", split=THREE)
    bad = shutil.copytree(model, tmp_path / "bad")
    weights = load_file(bad / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, bad / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="not finite"):
        convert(bad, tmp_path / "m.gguf", split=TWO, force=True)
    assert names(tmp_path) == ["bad", *parts(3)]
    assert verify(tmp_path / parts(3)[0], reference=model, tokens=32).ok


def test_a_dry_run_refuses_and_removes_nothing(model: Path, tmp_path: Path) -> None:
    convert(model, tmp_path / "m.gguf", split=THREE)
    with pytest.raises(OutputError, match=r"m-00001-of-00003\.gguf exists; pass --force"):
        convert(model, tmp_path / "m.gguf", split=TWO, dry_run=True)
    convert(model, tmp_path / "m.gguf", split=TWO, dry_run=True, force=True)
    assert names(tmp_path) == parts(3)


def test_any_part_names_the_whole_source(model: Path, tmp_path: Path) -> None:
    convert(model, tmp_path / "m.gguf", split=THREE)
    first, second, _ = (tmp_path / name for name in parts(3))
    for number, part in enumerate((first, second)):
        convert(part, tmp_path / f"out{number}.gguf", PI)
    one, two = (tmp_path / f"out{n}.gguf" for n in (0, 1))
    assert one.read_bytes() == two.read_bytes()  # its provenance names part 1 too
    artefact = open_artefact(second)
    assert artefact.path == first
    ids = random_ids(40)
    found, wanted = (
        np.concatenate(list(run)) for run in (artefact.logits(ids, 40), logits(first, ids, 40))
    )
    assert np.allclose(found, wanted, atol=1e-4)
    assert verify(second, reference=model, tokens=32).ok


def test_parts_are_joined_beside_themselves_and_never_overwritten(
    model: Path, tmp_path: Path
) -> None:
    convert(model, tmp_path / "m.gguf", split=THREE)
    first, second, _ = (tmp_path / name for name in parts(3))
    with pytest.raises(OutputError, match="is the source itself; choose another name"):
        convert(second, tmp_path / "m.gguf", split=THREE, force=True)
    with pytest.raises(OutputError, match="the source is split under that name; choose another"):
        convert(first, tmp_path / "m.gguf", split=TWO, force=True)
    assert convert(second, tmp_path / "m.gguf") == ["m.gguf"]
    assert convert(second, tmp_path / "m.gguf", force=True) == ["m.gguf"]
    assert names(tmp_path) == [*parts(3), "m.gguf"]
    assert np.array_equal(
        next(logits(first, [1, 2], 2)), next(logits(tmp_path / "m.gguf", [1, 2], 2))
    )


def test_a_source_is_not_its_own_output(model: Path, tmp_path: Path) -> None:
    convert(model, tmp_path / "m.gguf")
    before = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "link.gguf").symlink_to(tmp_path / "m.gguf")
    for out in (
        tmp_path / "m.gguf",
        tmp_path / "link.gguf",
        tmp_path / ".." / tmp_path.name / "m.gguf",
    ):
        with pytest.raises(OutputError, match="is the source itself; choose another name with -o"):
            convert(tmp_path / "m.gguf", out, PI, force=True)
    assert (tmp_path / "m.gguf").read_bytes() == before


def test_a_part_is_no_output(model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        OutputError,
        match=r"is the name of one part of a split model; give m\.gguf and --split-max-size",
    ):
        convert(model, tmp_path / "m-00002-of-00003.gguf", force=True)
    assert names(tmp_path) == []


def test_files_that_are_no_set_are_refused(model: Path, tmp_path: Path) -> None:
    convert(model, tmp_path / "m.gguf", split=THREE)
    convert(model, tmp_path / "w.gguf")

    def refusal(source: Path) -> str:
        with pytest.raises(RopeconvError) as caught:
            prepare(source, None)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    shutil.copy(tmp_path / parts(3)[1], tmp_path / "alone.gguf")
    assert (
        "is part 2 of 3 by its header; name it NAME-00002-of-00003.gguf beside the others"
        in refusal(tmp_path / "alone.gguf")
    )
    for number, source in enumerate((0, 0, 2)):  # the first part twice
        shutil.copy(tmp_path / parts(3)[source], tmp_path / parts(3, "twice")[number])
    assert "is part 1 of 3 by its header, so the files are not one set" in refusal(
        tmp_path / parts(3, "twice")[0]
    )
    for name in parts(2, "named"):
        shutil.copy(tmp_path / "w.gguf", tmp_path / name)
    assert "is part 1 of 1 by its header" in refusal(tmp_path / parts(2, "named")[0])
    (tmp_path / parts(3)[2]).unlink()
    assert "split file m-00003-of-00003.gguf is missing; put all 3 in one folder" in refusal(
        tmp_path / parts(3)[1]
    )


def test_parts_of_two_conversions_are_no_set(model: Path, tmp_path: Path) -> None:
    convert(model, tmp_path / "m.gguf", split=THREE)
    small = save_checkpoint(tmp_path / "small", "llama", context=L, num_hidden_layers=3)
    assert convert(small, tmp_path / "n.gguf", split=THREE) == parts(3, "n")
    shutil.copy(tmp_path / parts(3, "n")[2], tmp_path / parts(3)[2])
    with pytest.raises(CheckpointError, match=r"the splits hold \d+ tensors, their header says 21"):
        prepare(tmp_path / parts(3)[0], None)


def test_splits_and_a_whole_model_are_one_name(model: Path, tmp_path: Path) -> None:
    """Whichever is there, the other one replaces it, and only under --force."""
    convert(model, tmp_path / "m.gguf")
    (tmp_path / "notes.gguf").write_text("mine")  # no model: it is nobody's to replace
    with pytest.raises(OutputError, match=r"m\.gguf exists; pass --force to replace it"):
        convert(model, tmp_path / "m.gguf", split=TWO)
    assert convert(model, tmp_path / "m.gguf", split=TWO, force=True) == parts(2)
    assert convert(model, tmp_path / "notes.gguf", split=TWO) == parts(2, "notes")
    assert names(tmp_path) == sorted([*parts(2), *parts(2, "notes"), "notes.gguf"])
    whole = tmp_path / "whole.gguf"
    convert(model, whole)
    assert convert(whole, whole, split=TWO) == parts(2, "whole")  # a source stays
    assert whole.exists()


def test_a_folder_of_a_parts_name_is_no_output(model: Path, tmp_path: Path) -> None:
    (tmp_path / parts(2)[1]).mkdir()
    with pytest.raises(OutputError, match="is a folder and a file is to be written"):
        convert(model, tmp_path / "m.gguf", split=TWO, force=True)
    assert names(tmp_path) == [parts(2)[1]]
