"""The table of planted faults, on a random Llama: what it plants is one fault, and what it says is
what `verify` says.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.digests import digest
from bench.faults.catalogue import FAULTS, Fault, sound
from bench.faults.models import sound_file, source
from bench.faults.table import Results, planted
from bench.faults.trial import Outcome, Trial, judge

MODEL = "llama"
NAMED = {fault.name: fault for fault in FAULTS}
# (fault, type) -> the rungs that must see it
SEEN = {
    ("two query heads swapped", "Q8_0"): {"weights"},
    ("an embedding row zeroed", "Q8_0"): {"weights"},
    ("one block of down_proj zeroed", "Q8_0"): {"weights"},
    ("factor off by 1 %", "Q8_0"): {"frequencies"},
    ("epsilon x 10", "Q8_0"): {"structure"},
    ("stray: YaRN key", "Q8_0"): {"structure"},
    ("one merge swapped", "Q8_0"): {"tokens"},
    ("chat template: one character", "Q8_0"): {"tokens"},
    ("a row of q negated", "int4"): {"weights"},
    ("the graph crosses two layers", "int4"): {"logits"},
    ("attention scale off by 1 %, one layer", "int4"): {"logits"},
    ("no RoPE in one layer", "int4"): {"logits"},
    ("table wrong at one far row", "int4"): {"structure"},
    ("one merge swapped", "int4"): {"tokens"},
    ("bos flag", "int4"): {"tokens"},
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


def put_on_trial(fault: Fault, kind: str, work: Path, out: Path) -> Outcome:
    options = fault.options.get("gguf" if kind.startswith("Q") else "onnx", {})
    path = planted(sound_file(MODEL, kind, options, work), fault.name, kind, out)
    trial = Trial((fault.name, kind), lambda: path, source(MODEL, work), lambda: None)
    return judge(trial, tokens=96)


@pytest.mark.llama
@pytest.mark.torch
@pytest.mark.parametrize("kind", ["Q8_0", "int4"])
def test_a_copy_without_a_fault_passes(kind: str, work: Path, tmp_path: Path) -> None:
    outcome = put_on_trial(sound(MODEL), kind, work, tmp_path / "out.gguf")
    assert outcome.ok, outcome


@pytest.mark.llama
@pytest.mark.torch
@pytest.mark.parametrize(("name", "kind"), SEEN)
def test_a_fault_is_seen(name: str, kind: str, work: Path, tmp_path: Path) -> None:
    outcome = put_on_trial(NAMED[name], kind, work, tmp_path / "out.gguf")
    assert not outcome.refused, outcome
    assert SEEN[name, kind] <= set(outcome.rungs), outcome


def test_nothing_else_changes(work: Path, tmp_path: Path) -> None:
    """The gguf package writes the file again as it was, but for the fault's bytes."""
    path = sound_file(MODEL, "Q8_0", {}, work)
    again = planted(path, sound(MODEL).name, "Q8_0", tmp_path / "again.gguf")
    faulty = planted(path, "an embedding row zeroed", "Q8_0", tmp_path / "faulty.gguf")
    assert digest(again) == digest(path)
    mine, theirs = again.read_bytes(), faulty.read_bytes()
    differing = [at for at in range(len(mine)) if mine[at] != theirs[at]]
    row = 256 // 32 * 34  # bytes of Q8_0
    assert 0 < len(differing) <= row
    assert differing[-1] - differing[0] < row


def test_a_folder_shares_no_bytes_once_they_change(work: Path, tmp_path: Path) -> None:
    path = sound_file(MODEL, "int4", {}, work)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    for name in ("an embedding row zeroed", "no RoPE in one layer", "genai_config: head_size"):
        out = planted(path, name, "int4", tmp_path / "out")
        changed = [f for f in before if (out / f.relative_to(path)).read_bytes() != before[f]]
        assert len(changed) == 1, name
    assert all(file.read_bytes() == held for file, held in before.items())


def test_what_must_not_be_is_named() -> None:
    """A fault that nobody sees, a sound file that fails, and a crash; and no other."""
    faults = [
        NAMED[name] for name in ("two layers swapped", "k and v swapped", "another layer's norm")
    ]
    sound_name = sound("smollm2").name
    results = Results(
        faults,
        {
            (sound_name, "F16"): Outcome(ok=True),
            (sound_name, "Q8_0"): Outcome(ok=False, rungs=("logits",)),
            ("two layers swapped", "F16"): Outcome(ok=False, rungs=("weights",)),
            ("two layers swapped", "Q8_0"): Outcome(ok=False, rungs=("logits",)),
            ("k and v swapped", "F16"): Outcome(ok=True),
            ("k and v swapped", "Q8_0"): Outcome(ok=False, rungs=("weights", "logits")),
            ("another layer's norm", "F16"): Outcome(ok=False, crashed=True),
            ("another layer's norm", "Q8_0"): Outcome(ok=False, refused=True),
        },
    )
    assert results.wrong() == [
        (sound_name, "Q8_0"),
        ("two layers swapped", "Q8_0"),
        ("k and v swapped", "F16"),
        ("another layer's norm", "F16"),
    ]
    assert results.cell(NAMED["k and v swapped"], "Q8_0") == "weights"
