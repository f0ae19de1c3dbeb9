"""Routings of experts, biases that they are chosen with, shared experts and their gates, in every
type: logits equal transformers'.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_onnx.read.folder import Folder
from converters.to_onnx.read.tensors import read_tensors
from tests.families import nmse, random_ids
from tests.to_onnx.experts import routing_faults as faults
from tests.to_onnx.experts.routing_variants import (
    GATED,
    PROFILES,
    SIGMOID,
    SOFTMAX,
    UNNORMED,
    VARIANTS,
    L,
    Sources,
    operators,
    structure,
)
from tests.to_onnx.graph_faults import of_kind, set_attributes
from tests.to_onnx.onnx_folders import (
    convert,
    differences,
    edit_graph,
    in_onnxruntime,
    in_transformers,
    load,
)

LIMIT = 1e-11


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("variants"))


@pytest.mark.halved
@pytest.mark.torch
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_transformers(name: str, profile: str, sources: Sources, tmp_path: Path) -> None:
    """At twice the trained context, padded, and token by token with the cache."""
    source, out = sources[name], tmp_path / "out"
    convert(source, out, None, profile=profile)
    assert operators(out) == {"MoE" if profile == "ort" else "Scan"}
    assert differences(out, load(source)) <= LIMIT
    assert structure(out, source) == []


@pytest.mark.torch
@pytest.mark.parametrize("profile", PROFILES)
def test_scores_far_below_the_usual_keep_their_digits(
    profile: str, sources: Sources, tmp_path: Path
) -> None:
    """Where every chosen score is small, which onnxruntime's own Sigmoid makes equal or 0."""
    from safetensors.numpy import load_file, save_file

    source = shutil.copytree(sources[SIGMOID], tmp_path / "model")
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.1.mlp.gate.weight"] *= 40
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    convert(source, tmp_path / "out", None, profile=profile)
    model = load(source)
    assert differences(tmp_path / "out", model) <= LIMIT
    edit_graph(tmp_path / "out", faults.scored_by("Sigmoid"))
    assert not differences(tmp_path / "out", model) <= 1e-6


# options -> the operator that computes the experts
FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "fp16": ({"type": "fp16"}, "MoE"),
    "fp16 standard": ({"type": "fp16", "profile": "standard"}, "Scan"),
    "int4": ({"type": "int4"}, "QMoE"),
    "int4 in float32": ({"type": "int4", "accuracy_level": 1}, "QMoE"),
    "q4f16": ({"type": "q4f16"}, "QMoE"),
    "int8": ({"type": "int8", "profile": "standard"}, "QMoE"),
    "int8 in float32": ({"type": "int8", "accuracy_level": 1}, "Scan"),
}
TYPED = (SIGMOID, UNNORMED, SOFTMAX, GATED)
# NMSE of the usual token against transformers on the weights as stored; a few tokens go to another
# expert where activations are rounded. Measured: fp16 2e-6, int4 and int8 6e-4, in float32 3e-13.
ROUNDING = {"fp16": 1e-5, "int8": 4e-3, "int4": 4e-3, "q4f16": 4e-3}


@pytest.mark.torch
@pytest.mark.parametrize("name", TYPED)
@pytest.mark.parametrize("form", FORMS)
def test_every_type_computes_with_the_weights_that_it_stores(
    form: str, name: str, sources: Sources, tmp_path: Path
) -> None:
    options, operator = FORMS[form]
    source, out = sources[name], tmp_path / "out"
    convert(source, out, None, **options)
    assert operators(out) == {operator}
    assert structure(out, source) == []
    model = load(as_stored(out, source, tmp_path / "stored"))
    ids = np.array([random_ids(2 * L)])
    wanted = in_transformers(model, ids)[0]
    limit = LIMIT if "in float32" in form else ROUNDING[options["type"]]
    for cuts in ((), (L, 2 * L - 1)):
        got = in_onnxruntime(out, ids, cuts=cuts)[0]
        errors = ((got - wanted) ** 2).mean(axis=1) / wanted.var()
        assert np.median(errors) <= limit


def as_stored(out: Path, source: Path, folder: Path) -> Path:
    """The source with the folder's weights, which have its names and shapes."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(source, folder)
    wanted = load_file(source / "model.safetensors")
    found = read_tensors(Folder(out), {})
    assert set(found) == set(wanted)
    assert all(found[name].shape == tensor.shape for name, tensor in wanted.items())
    # float16 would send tokens elsewhere
    assert {found[name].dtype for name in wanted if "correction_bias" in name} <= {"F32"}
    tensors = {
        name: np.asarray(tensor.rows(0, tensor.shape[0]), np.float32).copy()
        for name, tensor in found.items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.torch
@pytest.mark.parametrize("name", [SIGMOID, SOFTMAX, GATED])
def test_onnx_s_own_evaluator_computes_it_too(name: str, sources: Sources, tmp_path: Path) -> None:
    import onnx
    from onnx.reference import ReferenceEvaluator

    source = sources[name]
    convert(source, tmp_path / "out", None, profile="standard")
    proto = onnx.load(str(tmp_path / "out" / "onnx" / "model.onnx"))
    for node in of_kind(proto, "GatherElements"):
        set_attributes(node, axis=1)  # of two; the evaluator misreads -1, which says the same
    graph = ReferenceEvaluator(proto)
    ids = np.array([random_ids(12)])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    feeds["position_ids"] = np.arange(12)[None]
    dims = {value.name: value.type.tensor_type.shape.dim for value in graph.proto_.graph.input}
    past = {
        part: np.zeros((1, size[1].dim_value, 0, size[3].dim_value), np.float32)
        for part, size in dims.items()
        if part.startswith("past_")
    }
    logits = graph.run(["logits"], feeds | past)[0]
    assert nmse(logits, in_transformers(load(source), ids)) <= LIMIT
