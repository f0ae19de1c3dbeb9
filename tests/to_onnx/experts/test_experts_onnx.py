"""Mixtures of experts: each form against transformers, experts read back, planted faults."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_onnx.options import Options
from converters.to_onnx.read.folder import Folder
from converters.to_onnx.read.nodes import Nodes
from converters.to_onnx.read.tensors import read_tensors
from converters.to_onnx.write import emit
from ropeconv.arch.blocks.moe import Routing
from ropeconv.errors import CannotExpress, CheckpointError
from ropeconv.extend import ScalingRequest
from ropeconv.prepare import prepare
from ropeconv.proof.report import FAIL, Report
from ropeconv.proof.run import verify
from tests.checkpoints import save_checkpoint
from tests.to_onnx.onnx_folders import (
    convert,
    edit_graph,
    in_onnxruntime,
    in_transformers,
    load,
    padded_batch,
    writable,
)

L = 64
EXPERTS, WIDTH = 4, 32
PROFILES = ("ort", "standard")
YARN = ScalingRequest(kind="yarn", factor=4)
MLP = "model.layers.{n}.mlp"
GATE_UP = f"{MLP}.experts.*.gate_proj.weight+{MLP}.experts.*.up_proj.weight"
DOWN = f"{MLP}.experts.*.down_proj.weight"
# name -> config: routings, and which layers have experts
VARIANTS: dict[str, dict[str, Any]] = {
    "shares normed": {"norm_topk_prob": True},
    "shares as they are": {"norm_topk_prob": False},
    "one expert a token": {"num_experts_per_tok": 1, "norm_topk_prob": False},
    "all experts a token": {"num_experts_per_tok": EXPERTS},
    "a dense first layer": {"mlp_only_layers": [0], "num_hidden_layers": 3},
    "experts in every second layer": {"decoder_sparse_step": 2, "num_hidden_layers": 4},
}


def make(folder: Path, **config: Any) -> Path:
    return save_checkpoint(folder, "qwen3_moe", context=L, **config)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("experts") / "model")


def nmse(got: np.ndarray, wanted: np.ndarray) -> float:
    """Mean squared error over the reference's variance."""
    return float(((got - wanted) ** 2).mean() / wanted.var())


def operators(out: Path) -> set[str]:
    """Kinds of the graph's nodes, bodies included."""
    return {node.op_type for node in Folder(out).nodes}


def error_of(out: Path, model: Any) -> float:
    """Over rows padded on either side: a prompt, then tokens one by one with the cache."""
    ids, positions, mask = padded_batch()
    got = in_onnxruntime(out, ids, positions=positions, mask=mask, cuts=(36, 37, 38, 39))
    wanted = in_transformers(model, ids, positions=positions, mask=mask)
    real = mask.astype(bool)
    assert np.isfinite(got).all()
    return nmse(got[real], wanted[real])


@pytest.mark.torch
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_experts_give_what_transformers_does(variant: str, profile: str, tmp_path: Path) -> None:
    source = make(tmp_path / "model", **VARIANTS[variant])
    convert(source, tmp_path / "out", None, profile=profile)
    assert error_of(tmp_path / "out", load(source)) <= 1e-11
    assert ("MoE" in operators(tmp_path / "out")) == (profile == "ort")


@pytest.mark.torch
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("method", ["linear", "ntk", "yarn"])
def test_past_the_trained_context(method: str, profile: str, source: Path, tmp_path: Path) -> None:
    rope: dict[str, dict[str, Any]] = {
        "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 20000.0},
        "ntk": {"rope_type": "default", "rope_theta": 20000.0 * 4 ** (16 / 14)},
        "yarn": {
            "rope_type": "yarn",
            "factor": 4.0,
            "rope_theta": 20000.0,
            "original_max_position_embeddings": L,
        },
    }
    convert(source, tmp_path / "out", ScalingRequest(kind=method, factor=4), profile=profile)
    model = load(source, rope_parameters=rope[method], max_position_embeddings=4 * L)
    ids = np.random.default_rng(1).integers(3, 96, (1, 4 * L))
    wanted = in_transformers(model, ids)
    for cuts in ((), (4 * L - 20, *range(4 * L - 19, 4 * L))):
        assert nmse(in_onnxruntime(tmp_path / "out", ids, cuts=cuts), wanted) <= 1e-11


# options -> the operator that computes the experts
FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "fp16": ({"type": "fp16"}, "MoE"),
    "fp16 standard": ({"type": "fp16", "profile": "standard"}, "Scan"),
    "int4": ({"type": "int4"}, "QMoE"),
    "int4 symmetric, blocks of 16": (
        {"type": "int4", "symmetric": True, "block_size": 16, "profile": "standard"},
        "QMoE",
    ),
    "int4 in float32": ({"type": "int4", "accuracy_level": 1}, "QMoE"),
    "q4f16": ({"type": "q4f16"}, "QMoE"),
    "int8": ({"type": "int8"}, "QMoE"),
    "int8 in float32": ({"type": "int8", "accuracy_level": 1}, "Scan"),
    "int8 in float32 with zero points": (
        {"type": "int8", "accuracy_level": 1, "symmetric": False, "profile": "standard"},
        "Scan",
    ),
}
# NMSE against transformers on the weights as stored: rounding of the activations alone, to float16
# or, in products with blocks, to int8 unless the accuracy level says otherwise.
# Measured: fp16 8e-7, int4 4e-4, int8 8e-4; with float32 activations 2e-13.
ROUNDING = {"fp16": 1e-5, "int8": 5e-3, "int4": 5e-3, "q4f16": 5e-3}
EXACT = {name for name in FORMS if "in float32" in name}


@pytest.mark.torch
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_every_type_computes_with_the_weights_that_it_stores(
    form: str, normed: bool, tmp_path: Path
) -> None:
    import torch

    options, operator = FORMS[form]
    source = make(tmp_path / "model", norm_topk_prob=normed)
    convert(source, tmp_path / "out", None, **options)
    assert operators(tmp_path / "out") & {"MoE", "QMoE", "Scan"} == {operator}
    stored = read_tensors(Folder(tmp_path / "out"), {})
    model = load(source)
    state = {
        name: torch.from_numpy(np.asarray(tensor.rows(0, tensor.shape[0]), np.float32).copy())
        for name, tensor in stored.items()
    }
    model.load_state_dict(_fused(state, model), strict=False)
    limit = 1e-11 if form in EXACT else ROUNDING[options["type"]]
    assert error_of(tmp_path / "out", model) <= limit


def _fused(state: dict[str, Any], model: Any) -> dict[str, Any]:
    """Experts as transformers holds them in memory: one tensor for gate and up, one for down."""
    import torch

    own = model.state_dict()
    found = {name: value for name, value in state.items() if name in own}
    for name in own.keys() - found.keys():
        stem, _, part = name.rpartition(".experts.")
        if not stem:
            continue
        parts = ("gate", "up") if part.startswith("gate_up") else ("down",)
        found[name] = torch.stack(
            [
                torch.cat([state[f"{stem}.experts.{n}.{p}_proj.weight"] for p in parts])
                for n in range(EXPERTS)
            ]
        )
        assert found[name].shape == own[name].shape
    assert found.keys() | {"lm_head.weight"} >= own.keys()
    return found


@pytest.mark.parametrize("options", [{}, {"profile": "standard"}, *(o for o, _ in FORMS.values())])
def test_experts_come_back_under_their_own_names(
    options: dict[str, Any], source: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    convert(source, tmp_path / "out", None, **options)
    wanted = load_file(source / "model.safetensors")
    found = read_tensors(Folder(tmp_path / "out"), {})
    assert set(found) == set(wanted)
    limits = {"int4": 0.2, "int8": 1e-2, "F16": 1e-3, "F32": 0.0}
    for name, values in wanted.items():
        rows = np.asarray(found[name].rows(0, len(values)), np.float32)
        assert rows.shape == values.shape
        limit = limits[found[name].dtype.partition("/")[0]]
        assert np.linalg.norm(rows - values) <= limit * np.linalg.norm(values), name
    routers = [found[name].dtype for name in wanted if name.endswith("mlp.gate.weight")]
    assert set(routers) <= {"F32", "F16"}


@pytest.mark.torch
def test_onnx_s_own_evaluator_runs_the_scan(source: Path, tmp_path: Path) -> None:
    import onnx
    from onnx.reference import ReferenceEvaluator

    convert(source, tmp_path / "out", None, profile="standard")
    graph = ReferenceEvaluator(onnx.load(str(tmp_path / "out" / "onnx" / "model.onnx")))
    ids = np.random.default_rng(1).integers(3, 96, (1, 12))
    feeds = {
        "input_ids": ids,
        "position_ids": np.arange(12)[None],
        "attention_mask": np.ones_like(ids),
    }
    past = {
        f"past_key_values.{n}.{part}": np.zeros((1, 2, 0, 16), np.float32)
        for n in range(2)
        for part in ("key", "value")
    }
    logits = graph.run(["logits"], feeds | past)[0]
    assert nmse(logits, in_transformers(load(source), ids)) <= 1e-11


def test_rows_that_no_block_fills_are_refused(tmp_path: Path) -> None:
    source = make(tmp_path / "model", moe_intermediate_size=24)
    with pytest.raises(CannotExpress, match=r"down_proj.weight has rows of 24, no multiple of 16"):
        convert(source, tmp_path / "out", None, type="int4")
    assert not (tmp_path / "out").exists()


@dataclass(frozen=True)
class GroupedRouting(Routing):
    """A routing that no table has."""


def test_a_routing_without_a_form_is_refused_by_its_name(source: Path, tmp_path: Path) -> None:
    model = prepare(source, None)
    layers = [
        replace(layer, mlp=replace(layer.mlp, routing=GroupedRouting(2, normed=True)))
        for layer in model.stack.layers
    ]
    other = replace(model, stack=replace(model.stack, layers=tuple(layers)))
    for profile in PROFILES:
        with pytest.raises(CannotExpress, match="no ONNX form of a grouped routing"):
            emit(other, tmp_path / "out", options=Options(profile=profile))
    assert not list(tmp_path.iterdir())


# Planted faults


@pytest.fixture(scope="module")
def folders(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound")
    for profile in PROFILES:
        convert(source, root / profile, YARN, profile=profile)
        convert(source, root / f"{profile}-fp16", YARN, profile=profile, type="fp16")
    convert(source, root / "ort-int4", YARN, type="int4")
    return root


def failed(report: Report) -> set[str]:
    return {rung.name for rung in report.rungs if rung.status == FAIL}


def swap_experts(out: Path) -> None:
    """The first two experts of layer 1, all three matrices."""
    for name in (GATE_UP, DOWN):
        for end in ("", "_codes", "_scales", "_zero_points"):
            stem = name.format(n=1) + end
            if any(tensor.name == stem for tensor in Folder(out).model.graph.initializer):
                values = writable(out, stem)
                values[:2] = values[:2][::-1].copy()


def swap_gate_and_up(out: Path) -> None:
    values = writable(out, GATE_UP.format(n=1))
    alternating = "MoE" in operators(out)
    parts = (values[:, 0::2], values[:, 1::2]) if alternating else np.split(values, 2, axis=1)
    parts[0][:], parts[1][:] = parts[1].copy(), parts[0].copy()


def scale_one_expert(out: Path) -> None:
    values = writable(out, DOWN.format(n=0))
    values[EXPERTS - 1] = values[EXPERTS - 1] * np.float32(1.01)


def one_expert_fewer(out: Path) -> None:
    """Every token goes to one expert of the two."""
    from onnx import helper, numpy_helper

    def change(model: Any) -> None:
        for node in model.graph.node:
            if node.op_type in ("MoE", "QMoE"):
                kept = [a for a in node.attribute if a.name != "k"]
                del node.attribute[:]
                node.attribute.extend([*kept, helper.make_attribute("k", 1)])
            elif node.op_type == "TopK":
                node.input[1] = "fewer"
        if any("fewer" in node.input for node in model.graph.node):
            model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "fewer"))
            _drop_unread(model)

    edit_graph(out, change)


def shares_as_they_are(out: Path) -> None:
    """The shares of a token's experts are not made to add up to 1."""
    from onnx import helper

    def change(model: Any) -> None:
        for node in model.graph.node:
            if node.op_type in ("MoE", "QMoE"):
                kept = [a for a in node.attribute if a.name != "normalize_routing_weights"]
                del node.attribute[:]
                flag = helper.make_attribute("normalize_routing_weights", 0)
                node.attribute.extend([*kept, flag])
            elif node.op_type == "Div" and node.output[0].endswith("share_normed"):
                node.op_type = "Identity"
                del node.input[1:]

    edit_graph(out, change)


def other_rows(out: Path) -> None:
    """Gate and up rows taken one after the other where they lie in turn, and the reverse."""

    def change(model: Any) -> None:
        for node in Nodes(model.graph):
            for attribute in node.attribute:
                if attribute.name == "swiglu_fusion":
                    attribute.i = 2
            if node.op_type == "Split" and "_expert_gate" in node.output[0]:
                node.output[0], node.output[1] = node.output[1], node.output[0]

    edit_graph(out, change)


def _drop_unread(model: Any) -> None:
    read = Nodes(model.graph).read
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in read]:
        model.graph.initializer.remove(tensor)


# name -> (fault, the rungs of which at least one must see it)
FAULTS: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "two experts swapped": (swap_experts, {"weights"}),
    "gate and up swapped": (swap_gate_and_up, {"weights"}),
    "one expert scaled by 1 %": (scale_one_expert, {"weights"}),
    "an expert fewer": (one_expert_fewer, {"logits"}),
    "shares not normed": (shares_as_they_are, {"logits"}),
}


@pytest.mark.torch
@pytest.mark.parametrize("folder", ["ort", "standard", "ort-fp16", "standard-fp16"])
def test_the_sound_folder_passes(folder: str, folders: Path, source: Path) -> None:
    report = verify(folders / folder, reference=source, tokens=2 * L)
    assert report.ok, report.verdict


@pytest.mark.halved
@pytest.mark.torch
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_turns_the_verdict(
    fault: str, profile: str, folders: Path, source: Path, tmp_path: Path
) -> None:
    plant, rungs = FAULTS[fault]
    out = shutil.copytree(folders / profile, tmp_path / "out")
    plant(out)
    report = verify(out, reference=source, tokens=2 * L)
    assert not report.ok
    assert failed(report) & rungs, failed(report)


@pytest.mark.torch
@pytest.mark.parametrize("fault", [one_expert_fewer, shares_as_they_are])
def test_routing_faults_are_seen_in_float16(
    fault: Callable[[Path], None], folders: Path, source: Path, tmp_path: Path
) -> None:
    """Where limits leave room for tokens that rounding sends to another expert."""
    out = shutil.copytree(folders / "standard-fp16", tmp_path / "out")
    fault(out)
    assert "logits" in failed(verify(out, reference=source, tokens=2 * L))


@pytest.mark.torch
def test_experts_swapped_in_blocks_are_seen(folders: Path, source: Path, tmp_path: Path) -> None:
    out = shutil.copytree(folders / "ort-int4", tmp_path / "out")
    swap_experts(out)
    assert "weights" in failed(verify(out, reference=source, tokens=L))


def test_an_operator_that_takes_other_rows_is_refused(
    folders: Path, source: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(folders / "ort", tmp_path / "out")
    other_rows(out)
    with pytest.raises(CheckpointError, match="holds 2 tensors in 64 rows, but the graph splits"):
        verify(out, reference=source, tokens=L)


@pytest.mark.torch
def test_parts_of_a_split_that_change_places_are_seen(
    folders: Path, source: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(folders / "standard", tmp_path / "out")
    other_rows(out)
    assert "logits" in failed(verify(out, reference=source, tokens=2 * L))
