"""Gated delta nets in onnxruntime: logits equal transformers', and no longer do once the graph has
lost a part of one; ai.onnx alone has no operator for them.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_onnx.read.folder import Folder
from converters.to_onnx.structure.unexpected import graph_findings
from ropeconv.errors import CannotExpress
from ropeconv.prepare import prepare
from tests.checkpoints import save_checkpoint
from tests.to_onnx.families import trait_faults as faults
from tests.to_onnx.families.trait_faults import Fault
from tests.to_onnx.onnx_folders import convert, differences, load

L, LIMIT, SEEN = 64, 1e-10, 1e-7
FAMILY = "qwen3_5_text"
FAULTS: dict[str, Fault] = {
    "decay the other way": faults.tensor("A_log", lambda a: -a),
    "one tap on": faults.tensor("conv1d.weight", lambda taps: np.roll(taps, 1, axis=-1)),
    "gate behind the state": faults.skips("Mul", "layer_0_state_gated"),
    "gate behind attention": faults.skips("Mul", "layer_1_attention_gated"),
    "length of keys": faults.skips("Mul", "layer_2_state_k_unit"),
    "another layer's state": faults.reads(
        "LinearAttention", "layer_0_state", 3, "past_recurrent.2"
    ),
    "shares": faults.skips("Sigmoid", "layer_2_share"),
}
BY_HEAD: dict[str, Fault] = {
    "z for v": faults.swapped_outputs("Split", "layer_0_state_q_of_heads", 2, 3),
    "a for b": faults.swapped_outputs("Split", "layer_2_state_b_of_heads", 0, 1),
    "k before q": faults.swapped_inputs("Concat", "layer_0_state_qkv", 0, 1),
}


def make(folder: Path, family: str) -> tuple[Path, Any]:
    """(checkpoint, in transformers), its folder beside it."""
    source = save_checkpoint(folder / "model", family, context=L)
    model = load(source)
    convert(source, folder / "sound", None)
    assert differences(folder / "sound", model) <= LIMIT
    return source, model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    return make(tmp_path_factory.mktemp("delta"), FAMILY)


@pytest.fixture(scope="module")
def by_head(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    return make(tmp_path_factory.mktemp("by_head"), "qwen3_next")


def structure(out: Path, source: Path) -> list[str]:
    return graph_findings(Folder(out), prepare(source, None))


def check_seen(fault: Fault, source: Path, model: Any, out: Path) -> None:
    """Logits show it, and so does the structure where it is the graph's."""
    sound, graph = source.parent / "sound", Path("onnx", "model.onnx")
    shutil.copytree(sound, out)
    fault(out)
    assert differences(out, model) > SEEN
    of_the_graph = (out / graph).read_bytes() != (sound / graph).read_bytes()
    assert bool(structure(out, source)) == of_the_graph


@pytest.mark.parametrize("name", FAULTS)
def test_a_part_that_is_lost_is_seen(name: str, made: Any, tmp_path: Path) -> None:
    source, model = made
    check_seen(FAULTS[name], source, model, tmp_path / "out")


@pytest.mark.parametrize("name", BY_HEAD)
def test_rows_by_head_that_are_mixed_up_are_seen(name: str, by_head: Any, tmp_path: Path) -> None:
    source, model = by_head
    check_seen(BY_HEAD[name], source, model, tmp_path / "out")


@pytest.mark.parametrize("kind", ["fp16", "int8", "int4", "q4f16"])
def test_the_structure_is_sound_in_every_type(
    kind: str, made: Any, by_head: Any, tmp_path: Path
) -> None:
    for n, (source, _) in enumerate((made, by_head)):
        convert(source, tmp_path / f"out{n}", None, type=kind, bake="tables")
        assert structure(tmp_path / f"out{n}", source) == []


def test_ai_onnx_alone_is_refused_by_the_operator_s_name(made: Any, tmp_path: Path) -> None:
    with pytest.raises(CannotExpress, match=r"LinearAttention .* take --profile ort"):
        convert(made[0], tmp_path / "out", None, profile="standard")
    assert not list(tmp_path.iterdir())
