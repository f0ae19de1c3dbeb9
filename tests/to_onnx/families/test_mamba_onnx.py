"""Mamba2 beside attention in onnxruntime: logits equal transformers', and no longer do once the
graph has lost a part of it; ai.onnx alone has no operator for it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

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
FAULTS: dict[str, Fault] = {
    "decay the other way": faults.tensor("A_log", lambda a: -a),
    "what passes the state by": faults.skips("Add", "layer_0_state_and_passed"),
    "gate behind the state": faults.skips("Mul", "layer_0_state_gated"),
    "weight of the norm": faults.skips("Mul", "layer_1_state_norm_own"),
    "steps of what is added": faults.skips("Mul", "layer_0_state_added"),
    "B for C": faults.swapped_inputs("LinearAttention", "layer_0_state", 0, 1),
    "scale of a part": faults.skips("Mul", "layer_1_state_c_scaled"),
    "factor of the output": faults.skips("Mul", "layer_1_state_out_scaled"),
    "factor of the MLP's gate": faults.skips("Mul", "layer_0_gate_scaled"),
    "all of it": faults.skips("Add", "layer_1_beside", 1),
    "another layer's state": faults.reads("LinearAttention", "layer_0_state", 3, "past_ssm.1"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("mamba")
    source = save_checkpoint(folder / "model", "falcon_h1", context=L)
    model = load(source)
    convert(source, folder / "sound", None)
    assert differences(folder / "sound", model) <= LIMIT
    return source, model


def structure(out: Path, source: Path) -> list[str]:
    return graph_findings(Folder(out), prepare(source, None))


@pytest.mark.parametrize("name", FAULTS)
def test_a_part_that_is_lost_is_seen(name: str, made: Any, tmp_path: Path) -> None:
    source, model = made
    sound, out = source.parent / "sound", tmp_path / "out"
    shutil.copytree(sound, out)
    FAULTS[name](out)
    assert differences(out, model) > SEEN
    graph = Path("onnx", "model.onnx")
    of_the_graph = (out / graph).read_bytes() != (sound / graph).read_bytes()
    assert bool(structure(out, source)) == of_the_graph


FORMS: dict[str, dict[str, Any]] = {
    "a norm before the gate": {"mamba_norm_before_gate": True},
    "no norm, no bias, one group": {
        "mamba_rms_norm": False,
        "mamba_conv_bias": False,
        "mamba_n_groups": 1,
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_are_exact(form: str, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "model", "falcon_h1", context=L, **FORMS[form])
    convert(source, tmp_path / "out", None)
    assert differences(tmp_path / "out", load(source)) <= LIMIT
    assert structure(tmp_path / "out", source) == []


@pytest.mark.parametrize("kind", ["fp16", "int8", "int4", "q4f16"])
def test_the_structure_is_sound_in_every_type(kind: str, made: Any, tmp_path: Path) -> None:
    convert(made[0], tmp_path / "out", None, type=kind, bake="tables")
    assert structure(tmp_path / "out", made[0]) == []


def test_ai_onnx_alone_is_refused_by_the_operator_s_name(made: Any, tmp_path: Path) -> None:
    with pytest.raises(CannotExpress, match=r"LinearAttention .* take --profile ort"):
        convert(made[0], tmp_path / "out", None, profile="standard")
    assert not list(tmp_path.iterdir())
