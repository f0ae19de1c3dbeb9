"""Faults that the rounding of 4-bit weights used to hide: each turns the verdict, by the logits of
float products against the file's own weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ropeconv.extend import ScalingRequest
from ropeconv.proof.report import FAIL
from ropeconv.proof.run import verify
from tests.checkpoints import save_checkpoint
from tests.to_onnx.onnx_folders import convert, edit_graph

L = 64
PI = ScalingRequest(kind="linear", factor=4)
TYPES = ("int4", "int8")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faults")
    source = save_checkpoint(root / "model", "llama", context=L)
    for kind in TYPES:
        convert(source, root / kind, PI, type=kind)
    return root


def of_kind(model: Any, kind: str) -> list[Any]:
    return [node for node in model.graph.node if node.op_type == kind]


def attribute(node: Any, name: str) -> Any:
    return next(found for found in node.attribute if found.name == name)


def another_scale(model: Any) -> None:
    """Of the scores in one layer, by 1 %."""
    attribute(of_kind(model, "GroupQueryAttention")[1], "scale").f *= 1.01


def another_epsilon(model: Any) -> None:
    """In one norm, as large as other families have it."""
    attribute(of_kind(model, "SkipSimplifiedLayerNormalization")[1], "epsilon").f = 1e-3


def another_norm(model: Any) -> None:
    """Two layers' weights in each other's place."""
    first, *_, last = of_kind(model, "SkipSimplifiedLayerNormalization")
    last.input[2], first.input[2] = first.input[2], last.input[2]


def no_rotation(model: Any) -> None:
    """Queries of one layer go past their rotation."""
    rotation = of_kind(model, "RotaryEmbedding")[0]
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == rotation.output[0]:
                node.input[place] = rotation.input[0]


def another_window(model: Any) -> None:
    from onnx import helper

    node = of_kind(model, "GroupQueryAttention")[0]
    kept = [found for found in node.attribute if found.name != "local_window_size"]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("local_window_size", 48)])


FAULTS: dict[str, Callable[[Any], None]] = {
    "attention scale off by 1 %": another_scale,
    "another epsilon": another_epsilon,
    "two norms in each other's place": another_norm,
    "no rotation in one layer": no_rotation,
    "a window in one layer": another_window,
}


@pytest.mark.torch
@pytest.mark.parametrize("kind", TYPES)
def test_a_sound_folder_computes_with_float32s_own_error(kind: str, folders: Path) -> None:
    report = verify(folders / kind, tokens=2 * L)
    assert report.ok, report
    judged, told = report.measured
    assert judged.judged
    assert judged.whole.nmse < 1e-10
    assert not told.judged
    assert told.whole.nmse > 1e-4
    assert f"with the file's own {kind} weights" in report.verdict
    assert "nats a token to quantisation" in report.verdict


@pytest.mark.torch
@pytest.mark.parametrize("kind", TYPES)
def test_the_standard_profile_declares_the_operators_of_blocks(
    kind: str, folders: Path, tmp_path: Path
) -> None:
    convert(folders / "model", tmp_path / "out", PI, type=kind, profile="standard")
    assert verify(tmp_path / "out", reference=folders / "model", tokens=2 * L).ok


@pytest.mark.torch
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_turns_the_verdict(fault: str, kind: str, folders: Path, tmp_path: Path) -> None:
    out = shutil.copytree(folders / kind, tmp_path / "out")
    edit_graph(out, FAULTS[fault])
    report = verify(out, reference=folders / "model", tokens=2 * L)
    assert "logits" in {rung.name for rung in report.rungs if rung.status == FAIL}, report
