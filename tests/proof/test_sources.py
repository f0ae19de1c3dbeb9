"""What a file is compared with: the source that it names, or another that is given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ropeconv.errors import CheckpointError
from ropeconv.extend import ScalingRequest
from ropeconv.proof.run import verify
from tests.proof.conftest import LINEAR_KEYS, L, Sound, provenance
from tests.proof.reports import failed

pytestmark = pytest.mark.llama


def test_the_reference_must_be_the_one_it_was_made_from(
    linear: Sound, make_sound: Any, tmp_path: Path
) -> None:
    path = linear.gguf.write(tmp_path / "t.gguf")
    other = make_sound("qwen3", "linear", LINEAR_KEYS)
    with pytest.raises(CheckpointError, match=r"is not the checkpoint that t\.gguf was made from"):
        verify(path, reference=other.folder)
    with pytest.raises(CheckpointError, match="is not the checkpoint"):
        verify(path, reference=other.folder, request=ScalingRequest("linear", factor=4.0))
    # as the writer says it: relative to the artefact's folder
    beside = os.path.relpath(linear.folder, tmp_path)
    relative = linear.gguf.strings["ropeconv.provenance"].replace(str(linear.folder), beside)
    assert verify(
        linear.changed(strings={"ropeconv.provenance": relative}).gguf.write(tmp_path / "r.gguf"),
        tokens=64,
    ).ok
    elsewhere = provenance(linear.folder, "llama", "linear").replace(str(linear.folder), "gone/x")
    gone = linear.changed(strings={"ropeconv.provenance": elsewhere})
    with pytest.raises(CheckpointError, match=r"its source gone/x cannot be opened .*--reference"):
        verify(gone.gguf.write(tmp_path / "g.gguf"))
    assert verify(tmp_path / "g.gguf", reference=linear.folder, tokens=64).ok


def test_a_file_without_provenance_takes_reference_and_scaling(
    linear: Sound, tmp_path: Path
) -> None:
    path = linear.changed(strings={"ropeconv.provenance": None}).gguf.write(tmp_path / "t.gguf")
    with pytest.raises(
        CheckpointError, match="says nothing about its source; name it with --reference"
    ):
        verify(path)
    assert verify(path, reference=linear.folder, request=ScalingRequest("linear", factor=4.0)).ok
    wrong = verify(path, reference=linear.folder, request=ScalingRequest("linear", factor=2.0))
    assert failed(wrong) == {
        "structure",
        "frequencies",
        "logits",
    }
    unscaled = verify(path, reference=linear.folder)
    assert failed(unscaled) == {
        "structure",
        "frequencies",
        "logits",
    }


def test_a_gguf_source_is_a_reference_too(linear: Sound, tmp_path: Path) -> None:
    plain = linear.changed(
        keys={"context_length": L, "rope.scaling.type": None, "rope.scaling.factor": None},
        strings={"ropeconv.provenance": None},
    )
    source = plain.gguf.write(tmp_path / "source.gguf")
    path = linear.changed(strings={"ropeconv.provenance": None}).gguf.write(tmp_path / "t.gguf")
    report = verify(path, reference=source, request=ScalingRequest("linear", factor=4.0))
    assert report.ok
    wrong = linear.changed(
        keys={"rope.scaling.factor": 4.04}, strings={"ropeconv.provenance": None}
    )
    report = verify(
        wrong.gguf.write(tmp_path / "w.gguf"),
        reference=source,
        request=ScalingRequest("linear", factor=4.0),
    )
    assert failed(report) == {
        "frequencies",
        "logits",
    }
