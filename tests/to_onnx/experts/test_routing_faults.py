"""A graph that has lost a part of a routing or of a shared expert gives other logits, and the
structure rung says what it has lost; so does the whole proof.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from converters.to_onnx.read.folder import Folder
from ropeconv.extend import ScalingRequest
from ropeconv.proof.report import FAIL
from ropeconv.proof.run import verify
from tests.to_onnx.experts import routing_faults as faults
from tests.to_onnx.experts.routing_variants import (
    BY_BEST,
    GATED,
    GROUPED,
    PROFILES,
    SIGMOID,
    SOFTMAX,
    UNNORMED,
    L,
    Sources,
    structure,
)
from tests.to_onnx.graph_faults import Edit
from tests.to_onnx.onnx_folders import convert, differences, edit_graph, load, writable

SEEN = 1e-6  # what the smallest of the faults changes
YARN = ScalingRequest(kind="yarn", factor=4)


@dataclass(frozen=True)
class Fault:
    """What is planted in which variant, and words of the line that tells it.

    only: the profiles whose graphs have what is at fault.
    """

    variant: str
    edit: Edit
    words: str
    only: tuple[str, ...] = field(default=PROFILES)


FAULTS: dict[str, Fault] = {
    "chosen without the bias": Fault(
        SIGMOID,
        faults.chosen_without_bias,
        "model.layers.1.mlp.gate.e_score_correction_bias: the graph has operator Sigmoid",
    ),
    "chosen without the bias, softmax": Fault(
        SOFTMAX,
        faults.chosen_without_bias,
        "e_score_correction_bias: the graph has operator Softmax",
    ),
    "weighted with the bias": Fault(
        SIGMOID, faults.weighted_with_bias, "layer 1 router scores: the graph has values plus"
    ),
    "softmax for sigmoid": Fault(
        SIGMOID, faults.scored_by("Softmax"), "layer 1 router scores: the graph has operator Softm"
    ),
    "sigmoid for softmax": Fault(
        SOFTMAX, faults.scored_by("Sigmoid"), "layer 1 router scores: the graph has operator Sigmo"
    ),
    "scale off by 1 %": Fault(
        SIGMOID,
        faults.other_constant("routed_scale", 1.01),
        "layer 1 experts' scale: by is 1.51",
    ),
    "scale dropped": Fault(
        SIGMOID, faults.dropped("experts_scaled"), "layer 1 experts' scale: the graph has experts"
    ),
    "shared expert dropped": Fault(
        SIGMOID,
        faults.dropped("experts_shared"),
        "product by a matrix (weight model.layers.1.mlp.shared_experts.down_proj.weight) is miss",
    ),
    "gate dropped": Fault(
        GATED, faults.dropped("shared_gated"), "layer 1 shared expert's gate: the graph has product"
    ),
    "gate without its sigmoid": Fault(
        GATED, faults.dropped("shared_share"), "the model operator Sigmoid"
    ),
    "one expert fewer": Fault(
        SIGMOID, faults.experts_more(-1), "layer 1 experts: chosen is 1, the model's is 2"
    ),
    "one expert more": Fault(
        SIGMOID, faults.experts_more(1), "layer 1 experts: chosen is 3, the model's is 2"
    ),
    "shares made to add up to 1": Fault(
        UNNORMED, faults.normed, "layer 1 experts: normed is True, the model's is False", ("ort",)
    ),
    "shares left as they are": Fault(
        SIGMOID,
        faults.dropped("share_normed"),
        "layer 1 experts: normed is False, the model's is True",
        ("standard",),
    ),
    "one group fewer": Fault(
        GROUPED, faults.groups_more(-1), "constant: values is (1,), the model's is (2,)"
    ),
    "one group more": Fault(
        BY_BEST, faults.groups_more(1), "constant: values is (2,), the model's is (1,)"
    ),
    "groups without their bounds": Fault(
        GROUPED,
        faults.dropped_group_mask,
        "the model constant (type float32, shape (), values (-inf",
    ),
    "shares of others": Fault(SIGMOID, faults.other_experts(3), "layer 1"),
    "experts that are not chosen": Fault(SIGMOID, faults.others_chosen_too, "layer 1", ("ort",)),
    "logarithms left out": Fault(SIGMOID, faults.dropped("share_log"), "layer 1", ("ort",)),
}
CELLS = [(name, profile) for name, fault in FAULTS.items() for profile in fault.only]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("variants"))


@pytest.mark.halved
@pytest.mark.torch
@pytest.mark.parametrize(("name", "profile"), CELLS)
def test_a_fault_changes_logits_and_is_a_line(
    name: str, profile: str, sources: Sources, tmp_path: Path
) -> None:
    fault, out = FAULTS[name], tmp_path / "out"
    source = sources[fault.variant]
    convert(source, out, None, profile=profile)
    edit_graph(out, fault.edit)
    assert differences(out, load(source)) > SEEN
    said = structure(out, source)
    assert any(fault.words in line for line in said), said
    convert(source, out, None, profile=profile, type="fp16" if profile == "standard" else "int4")
    edit_graph(out, fault.edit)
    assert any(fault.words in line for line in structure(out, source))


def swap_experts(out: Path) -> None:
    """The first two experts of layer 1, all three matrices."""
    stems = [t.name for t in Folder(out).model.graph.initializer if "1.mlp.experts.*" in t.name]
    assert len(stems) == 2
    for stem in stems:
        values = writable(out, stem)
        values[:2] = values[:2][::-1].copy()


def other_numbers(end: str, by: float) -> Callable[[Path], None]:
    """A weight of layer 1, times a number."""

    def plant(out: Path) -> None:
        values = writable(out, f"model.layers.1.mlp.{end}")
        values[...] = values * np.float32(by)

    return plant


def in_graph(edit: Edit) -> Callable[[Path], None]:
    """An edit of the folder's graph."""
    return lambda out: edit_graph(out, edit)


# name -> variant, fault, the rungs that must see it
WHOLE: Mapping[str, tuple[str, Callable[[Path], None], set[str]]] = {
    "two experts swapped": (SIGMOID, swap_experts, {"weights", "logits"}),
    "router bias zeroed": (
        SIGMOID,
        other_numbers("gate.e_score_correction_bias", 0),
        {"weights", "logits"},
    ),
    "router bias dropped": (
        SIGMOID,
        in_graph(faults.chosen_without_bias),
        {"structure", "logits"},
    ),
    "shared gate off by 1 %": (
        GATED,
        other_numbers("shared_expert_gate.weight", 1.01),
        {"weights"},
    ),
    "shared gate dropped": (
        GATED,
        in_graph(faults.dropped("shared_gated")),
        {"structure", "logits"},
    ),
    "a wrong scale": (
        SIGMOID,
        in_graph(faults.other_constant("routed_scale", 1.01)),
        {"structure", "logits"},
    ),
}


@pytest.mark.torch
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", WHOLE)
def test_a_fault_turns_the_verdict(
    name: str, profile: str, sources: Sources, tmp_path: Path
) -> None:
    variant, plant, rungs = WHOLE[name]
    source, out = sources[variant], tmp_path / "out"
    convert(source, out, YARN, profile=profile)
    if name == "a wrong scale":
        report = verify(out, reference=source, tokens=2 * L)
        assert report.ok, report.verdict
    plant(out)
    report = verify(out, reference=source, tokens=2 * L)
    assert {rung.name for rung in report.rungs if rung.status == FAIL} >= rungs
