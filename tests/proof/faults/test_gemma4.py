"""Gemma 4 as it is published, where the slowest pairs of full attention stand still: every target
computes what transformers does at 4 x the trained context, and a part that is lost is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf.read.tensors import open_tensors
from converters.to_onnx.read.folder import Folder
from converters.to_onnx.structure.unexpected import graph_findings
from ropeconv.api import convert, verify
from ropeconv.errors import CannotExpress, CheckpointError, ConfigError, RopeConfigError
from ropeconv.extend import ScalingRequest
from ropeconv.prepare import prepare
from tests.checkpoints import save_checkpoint, with_config
from tests.to_gguf.gguf_edits import edit
from tests.to_onnx.families import trait_faults
from tests.to_onnx.onnx_folders import convert as to_onnx
from tests.to_onnx.onnx_folders import differences, load

pytestmark = pytest.mark.torch
L, FAMILY = 64, "gemma4_text"
PUBLISHED = {"rope_type": "proportional", "rope_theta": 20000.0, "partial_rotary_factor": 0.25}
TURNING, PAIRS = 2, 8  # of a head with full attention
PI = ScalingRequest(kind="linear", factor=4)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(
        tmp_path_factory.mktemp("gemma4") / "model", FAMILY, context=L, rope=PUBLISHED
    )


TARGETS: dict[str, dict[str, Any]] = {
    "gguf": {"type": "F32"},
    "onnx": {"type": "fp32"},
    "onnx, standard": {"type": "fp32", "profile": "standard", "bake": "tables"},
    "safetensors": {},
}


def write(source: Path, target: str, out: Path, scaling: ScalingRequest | None = PI) -> Path:
    format_, _, _ = target.partition(",")
    place = out / ("out.gguf" if format_ == "gguf" else "out")
    convert(source, format_, place, scaling=scaling, **TARGETS[target])
    return place


# what the large ones have otherwise
LARGE: dict[str, Any] = {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0}
EXPERTS = LARGE | {
    "enable_moe_block": True,
    "num_experts": 4,
    "top_k_experts": 2,
    "moe_intermediate_size": 32,
}
SIZES: dict[str, dict[str, Any]] = {"small": {}, "large": LARGE, "experts": EXPERTS}


CASES = [("small", target) for target in TARGETS]
CASES += [(size, target) for size in ("large", "experts") for target in ("gguf", "onnx")]


@pytest.mark.llama
@pytest.mark.halved
@pytest.mark.parametrize(("size", "target"), CASES)
def test_interpolation_is_exact_in_every_target(
    target: str, size: str, source: Path, tmp_path: Path
) -> None:
    if size != "small":
        folder = tmp_path / "model"
        source = save_checkpoint(folder, FAMILY, context=L, rope=PUBLISHED, **SIZES[size])
    report = verify(write(source, target, tmp_path), tokens=4 * L)
    assert report.ok, [(rung.name, rung.findings) for rung in report.rungs]


def test_the_pairs_that_stand_still_keep_still(source: Path, tmp_path: Path) -> None:
    """And those that turn do so four times slower."""
    found = open_tensors(write(source, "gguf", tmp_path))["rope_freqs.weight"].rows(0, PAIRS)
    assert found.tolist() == [4.0] * TURNING + [np.float32(1e30)] * (PAIRS - TURNING)


def test_a_file_is_read_back_as_it_was_published(source: Path, tmp_path: Path) -> None:
    scaled = prepare(source, PI)
    read = prepare(write(source, "gguf", tmp_path), None)
    assert read.main_rope.kind == scaled.main_rope.kind
    for kind, frequencies in scaled.frequencies.items():
        found = read.frequencies[kind]
        assert frequencies is not None
        assert found is not None
        assert np.allclose(found.inv_freq, frequencies.inv_freq, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["ntk", "yarn"])
def test_another_method_has_no_meaning_for_pairs_that_stand_still(kind: str, source: Path) -> None:
    with pytest.raises(RopeConfigError, match="can only be scaled as proportional"):
        prepare(source, ScalingRequest(kind=kind, factor=4))


Change = Callable[[np.ndarray], np.ndarray]
# keys and tensors of the file that become others, the rungs that tell
OF_FILES: dict[str, tuple[dict[str, Any], dict[str, Change], set[str]]] = {
    "every pair turns": ({}, {"rope_freqs.weight": lambda d: np.full_like(d, 4)}, {"frequencies"}),
    "a layer's own scale": (
        {},
        {"blk.1.layer_output_scale.weight": lambda s: s * 1.1},
        {"weights", "logits"},
    ),
    "the base of windows": ({"gemma4.rope.freq_base_swa": 2e4}, {}, {"frequencies", "logits"}),
    "heads of two": ({"gemma4.attention.head_count_kv": [2, 1, 2, 2]}, {}, {"structure"}),
    "inputs of other tokens": (
        {},
        {"per_layer_token_embd.weight": lambda rows: np.roll(rows, 1, axis=0)},
        {"weights", "logits"},
    ),
}


@pytest.mark.llama
@pytest.mark.halved
@pytest.mark.parametrize("name", OF_FILES)
def test_a_fault_in_a_file_is_seen(name: str, source: Path, tmp_path: Path) -> None:
    keys, tensors, rungs = OF_FILES[name]
    bad = edit(write(source, "gguf", tmp_path), tmp_path / "bad.gguf", keys, tensors=tensors)
    report = verify(bad, reference=source, tokens=2 * L)
    assert rungs <= {rung.name for rung in report.rungs if rung.status == "fail"}


# a key that becomes another -> the words of the refusal
UNREADABLE: dict[str, tuple[Any, str]] = {
    "rope.dimension_count": (8, "dimension_count is 8, heads have 16"),
    "rope.dimension_count_swa": (16, "dimension_count_swa is 16, heads have 32"),
    "attention.shared_kv_layers": (1.5, "no usable gemma4.attention.shared_kv_layers"),
    "attention.key_length_swa": (None, "no usable gemma4.attention.key_length_swa"),
    "embedding_length_per_layer_input": (2.5, "no usable gemma4.embedding_length_per_layer"),
    "expert_count": (4, "no usable gemma4.expert_used_count"),
}


def test_a_file_that_no_config_can_say_is_refused(source: Path, tmp_path: Path) -> None:
    sound = write(source, "gguf", tmp_path)
    for key, (value, words) in UNREADABLE.items():
        bad = edit(sound, tmp_path / f"{key}.gguf", {f"gemma4.{key}": value})
        with pytest.raises(CheckpointError, match=words):
            prepare(bad, None)


NORMS = ("SimplifiedLayerNormalization", "RMSNormalization")
# what a graph loses, by profile
OF_GRAPHS = {
    "the norm of values": [trait_faults.skips(norm, "layer_1_v_norm") for norm in NORMS],
    "a layer's own scale": [trait_faults.skips("Mul", "layer_1_own_scale")],
    "values that are keys": [
        trait_faults.reads(name, "layer_1_attention", 2, value)
        for name, value in (
            ("GroupQueryAttention", "layer_1_k_rotated"),
            ("Attention", "layer_1_k_rotated"),
        )
    ],
    "values of another layer": [
        trait_faults.reads("Attention", "layer_3_attention", 2, "layer_1_k_rotated"),
    ],
    "the input of a layer": [trait_faults.skips("Mul", "layer_2_input_gated")],
    "what the inputs are made of": [trait_faults.skips("Add", "layer_inputs", 1)],
    "scores that are not scaled": [trait_faults.attribute("Attention", "scale", 0.25)],
}


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gemma4") / "experts"
    return save_checkpoint(folder, FAMILY, context=L, rope=PUBLISHED, **EXPERTS)


@pytest.mark.llama
def test_a_fault_in_an_expert_s_scale_is_seen(mixture: Path, tmp_path: Path) -> None:
    tensors = {"blk.0.ffn_down_exps.scale": lambda scales: scales[::-1].copy()}
    bad = edit(write(mixture, "gguf", tmp_path), tmp_path / "bad.gguf", tensors=tensors)
    report = verify(bad, reference=mixture, tokens=2 * L)
    assert {"weights", "logits"} <= {r.name for r in report.rungs if r.status == "fail"}


OF_MIXTURES = {
    "scales of experts": trait_faults.skips("Mul", "layer_1_router_scaled"),
    "what the router reads": trait_faults.skips("Mul", "layer_0_router_input_scaled"),
    "the norm behind the MLP": trait_faults.tensor(
        "post_feedforward_layernorm_1.weight", lambda weight: weight[::-1]
    ),
}


@pytest.mark.halved
@pytest.mark.parametrize("name", OF_MIXTURES)
def test_a_part_of_a_mixture_that_a_graph_loses_is_seen(
    name: str, mixture: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    to_onnx(mixture, out, None)
    model, prepared = load(mixture), prepare(mixture, None)
    assert differences(out, model) <= 1e-10
    assert not graph_findings(Folder(out), prepared)
    before = (out / "onnx" / "model.onnx").read_bytes()
    OF_MIXTURES[name](out)
    assert differences(out, model) > 1e-7
    in_graph = (out / "onnx" / "model.onnx").read_bytes() != before
    assert bool(graph_findings(Folder(out), prepared)) == in_graph


def test_experts_of_four_bits_are_refused(mixture: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotExpress, match="have no ONNX form in 4 bits"):
        to_onnx(mixture, tmp_path / "out", None, type="int4")


@pytest.fixture(scope="module")
def loaded(source: Path) -> Any:
    return load(source)


@pytest.mark.halved
@pytest.mark.parametrize("name", OF_GRAPHS)
def test_a_part_that_a_graph_loses_is_seen(
    name: str, source: Path, loaded: Any, tmp_path: Path
) -> None:
    """In one profile, the next part in the other."""
    out, number = tmp_path / "out", list(OF_GRAPHS).index(name) % 2
    to_onnx(source, out, None, profile=("ort", "standard")[number])
    assert differences(out, loaded) <= 1e-10
    faults = OF_GRAPHS[name]
    faults[number % len(faults)](out)
    assert differences(out, loaded) > 1e-7
    assert graph_findings(Folder(out), prepare(source, None))


# config keys -> the words of the refusal
UNCOVERED: dict[str, tuple[dict[str, Any], str]] = {
    "no layer with keys of its own": ({"num_kv_shared_layers": 4}, "of which there are none"),
    "none of a kind with keys of its own": ({"num_kv_shared_layers": 3}, "of which there are none"),
    "experts of no number": ({"enable_moe_block": True}, "enable_moe_block needs num_experts"),
    "both directions": ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention"),
    "an older rope": ({"rope_theta": 1e6}, "rope_theta"),
    "a last layer with a window": (
        {"layer_types": ["sliding_attention"] * 4, "per_layer_config": None},
        "ends with",
    ),
}


@pytest.mark.parametrize("name", UNCOVERED)
def test_what_has_no_blocks_is_refused_by_its_key(name: str, source: Path, tmp_path: Path) -> None:
    keys, words = UNCOVERED[name]
    with pytest.raises(ConfigError, match=words):
        prepare(with_config(source, tmp_path / "model", **keys), None)


def test_a_config_of_the_hub_says_the_same(source: Path, tmp_path: Path) -> None:
    """Two keys in place of the one that transformers saves."""
    own = {"global_head_dim": 16, "num_global_key_value_heads": 1, "per_layer_config": None}
    found = prepare(with_config(source, tmp_path / "hub", **own), None)
    assert found.stack == prepare(source, None).stack


@pytest.mark.parametrize("layers", [{"1": {"head_dim": 16}}, {"0": {"head_dim": 16}}])
def test_sizes_that_no_kind_of_layer_has_alike_are_refused(
    layers: dict[str, Any], source: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="must give the same head_dim"):
        prepare(with_config(source, tmp_path / "model", per_layer_config=layers), None)


def test_keys_that_no_layer_reads_are_left_out(source: Path, tmp_path: Path) -> None:
    """Published checkpoints hold keys for layers that take another's."""
    from safetensors.numpy import load_file, save_file

    model = with_config(source, tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    names = [f"model.layers.3.self_attn.{part}.weight" for part in ("k_proj", "v_proj", "k_norm")]
    extra = {name: np.zeros((16, 64), np.float32) for name in names}
    save_file(tensors | extra, model / "model.safetensors", metadata={"format": "pt"})
    assert prepare(model, None).weights.keys().isdisjoint(names)
