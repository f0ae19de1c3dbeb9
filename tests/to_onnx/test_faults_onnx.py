"""Planted faults: each one turns the verdict of `verify`, by the rung that should see it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.errors import CheckpointError
from ropeconv.extend import ScalingRequest
from ropeconv.proof.report import FAIL, Report
from ropeconv.proof.run import verify
from tests.checkpoints import save_checkpoint
from tests.to_onnx.onnx_folders import convert, edit_graph, writable

L = 64
YARN = ScalingRequest(kind="yarn", factor=4, parameters={"attention_factor": 1.3})
PROFILES = ("ort", "standard")
ROPE, DATA = "rope.full_attention.", Path("onnx", "model.onnx_data")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source and a sound folder for each profile and bake."""
    root = tmp_path_factory.mktemp("faults")
    source = save_checkpoint(root / "model", "llama", context=L)
    for profile in PROFILES:
        for bake in ("metadata", "tables"):
            convert(source, root / f"{profile}-{bake}", YARN, profile=profile, bake=bake)
    return root


def judge(out: Path, source: Path) -> Report:
    return verify(out, reference=source, tokens=2 * L)


def failed(report: Report) -> set[str]:
    return {rung.name for rung in report.rungs if rung.status == FAIL}


def initializer(model: Any, name: str) -> Any:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def scale_constant(out: Path, name: str, factor: float) -> None:
    from onnx import numpy_helper

    def change(model: Any) -> None:
        tensor = initializer(model, name)
        values = np.asarray(numpy_helper.to_array(tensor) * np.float32(factor), np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, name))

    edit_graph(out, change)


def set_attribute(out: Path, kind: str, name: str, value: int | float) -> None:
    def change(model: Any) -> None:
        from onnx import helper

        nodes = [node for node in model.graph.node if node.op_type == kind]
        assert nodes
        for node in nodes:
            kept = [a for a in node.attribute if a.name != name]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute(name, value)])

    edit_graph(out, change)


def another_factor(out: Path) -> None:
    """Tables and frequencies of a factor 1 % off."""
    if out.name.endswith("metadata"):
        scale_constant(out, f"{ROPE}inv_freq", 1 / 1.01)
        return
    cos, sin = (writable(out, f"{ROPE}{part}") for part in ("cos", "sin"))
    angle, size = np.angle(cos[1] + 1j * sin[1]) / 1.01, np.hypot(cos[1], sin[1])
    cos[:], sin[:] = (f(np.arange(len(cos))[:, None] * angle) * size for f in (np.cos, np.sin))


def dropped_magnitude(out: Path) -> None:
    if out.name.endswith("metadata"):
        scale_constant(out, f"{ROPE}magnitude", 1 / 1.3)
        return
    for part in ("cos", "sin"):
        table = writable(out, f"{ROPE}{part}")
        table[:] = table / 1.3


def swapped_heads(out: Path) -> None:
    _, keys, _ = qkv_rows(out)
    keys[:] = np.roll(keys, 16, axis=0)


def swapped_keys_and_values(out: Path) -> None:
    _, keys, values = qkv_rows(out)
    keys[:], values[:] = values.copy(), keys.copy()


def qkv_rows(out: Path) -> list[np.ndarray]:
    """q, k and v of layer 1 in the matrix that they share: 4 and 2 heads of 16."""
    shared = "+".join(f"model.layers.1.self_attn.{part}_proj.weight" for part in "qkv")
    return np.split(writable(out, shared), [64, 96])


def scaled_tensor(out: Path) -> None:
    down = writable(out, "model.layers.0.mlp.down_proj.weight")
    down[:] = down * 1.01


def not_a_number(out: Path) -> None:
    writable(out, "model.norm.weight")[3] = np.nan


def stray_initializer(out: Path) -> None:
    from onnx import numpy_helper

    edit_graph(
        out,
        lambda m: m.graph.initializer.append(
            numpy_helper.from_array(np.zeros(3, np.float32), "stray")
        ),
    )


def lost_mask(out: Path) -> None:
    """Padding is attended to: no bias, or a mask of the causal part alone."""

    def change(model: Any) -> None:
        for node in model.graph.node:
            if node.op_type == "GroupQueryAttention":
                del node.input[7:]
            elif node.op_type == "Attention":
                node.input[3] = "causal_alone"
        expand = next((n for n in model.graph.node if n.op_type == "And"), None)
        if expand is not None:
            from onnx import helper

            real, seen = expand.input
            nodes = [
                helper.make_node("Or", [real, seen], ["every"]),
                helper.make_node("Or", ["every", seen], ["wide"]),
                helper.make_node("And", ["wide", seen], ["causal_alone"]),
            ]
            at = list(model.graph.node).index(expand) + 1
            tail = list(model.graph.node)[at:]
            del model.graph.node[at:]
            model.graph.node.extend([*nodes, *tail])
            model.graph.node.remove(expand)

    edit_graph(out, change)


# name -> (fault, the rungs of which at least one must see it)
FAULTS: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "tables of another factor": (another_factor, {"frequencies"}),
    "magnitude dropped": (dropped_magnitude, {"frequencies"}),
    "pairs interleaved": (
        lambda out: set_attribute(out, "RotaryEmbedding", "interleaved", 1),
        {"logits"},
    ),
    "kv heads swapped": (swapped_heads, {"weights"}),
    "k and v swapped": (swapped_keys_and_values, {"weights"}),
    "a tensor scaled by 1 %": (scaled_tensor, {"weights"}),
    "not a number": (not_a_number, {"weights", "logits"}),
    "an initializer that nothing reads": (stray_initializer, {"structure"}),
    "padding attended to": (lost_mask, {"probes"}),
}


@pytest.mark.parametrize("bake", ["metadata", "tables"])
@pytest.mark.parametrize("profile", PROFILES)
def test_the_sound_folder_passes(profile: str, bake: str, folders: Path) -> None:
    report = judge(folders / f"{profile}-{bake}", folders / "model")
    assert report.ok, report.verdict


@pytest.mark.halved
@pytest.mark.torch
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_turns_the_verdict(fault: str, profile: str, folders: Path, tmp_path: Path) -> None:
    plant, rungs = FAULTS[fault]
    for bake in ("metadata", "tables"):
        out = shutil.copytree(folders / f"{profile}-{bake}", tmp_path / f"{profile}-{bake}")
        plant(out)
        report = judge(out, folders / "model")
        assert not report.ok, bake
        assert failed(report) & rungs, (bake, failed(report))


def split_layer_1(out: Path, sizes: list[int]) -> None:
    """The first product of layer 1 split into other sizes."""
    from onnx import numpy_helper

    def change(model: Any) -> None:
        node = next(
            n for n in model.graph.node if n.op_type == "Split" and n.output[0] == "layer_1_q"
        )
        node.input[1] = "other_sizes"
        model.graph.initializer.append(numpy_helper.from_array(np.array(sizes), "other_sizes"))

    edit_graph(out, change)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("sizes", [[64, 32], [64, 32, 31], [64, 64, 0], [128]])
def test_rows_that_do_not_add_up_are_refused(
    sizes: list[int], profile: str, folders: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(folders / f"{profile}-metadata", tmp_path / "out")
    split_layer_1(out, sizes)
    with pytest.raises(
        CheckpointError,
        match=r"v_proj.weight holds 3 tensors in 128 rows, but .* into \[.*convert it again",
    ):
        judge(out, folders / "model")


@pytest.mark.parametrize("profile", PROFILES)
def test_rows_cut_elsewhere_fail(profile: str, folders: Path, tmp_path: Path) -> None:
    """As many rows as there are, but the last head of q counted to k."""
    out = shutil.copytree(folders / f"{profile}-metadata", tmp_path / "out")
    split_layer_1(out, [48, 48, 32])
    report = judge(out, folders / "model")
    assert "structure" in failed(report)
    assert any(
        "layers.1.self_attn.q_proj.weight" in line
        for rung in report.rungs
        for line in rung.findings
    )


@pytest.mark.parametrize(
    "options", [{}, {"type": "int4"}, {"type": "fp16", "profile": "standard"}], ids=str
)
def test_shared_matrices_come_back_under_their_own_names(
    options: dict[str, Any], tmp_path: Path
) -> None:
    """Weights and biases, against the checkpoint as safetensors reads it."""
    from safetensors.numpy import load_file

    from converters.to_onnx.read.folder import Folder
    from converters.to_onnx.read.tensors import read_tensors

    source = save_checkpoint(
        tmp_path / "model", "llama", context=L, attention_bias=True, mlp_bias=True
    )
    convert(source, tmp_path / "out", None, **options)
    wanted = load_file(source / "model.safetensors")
    found = read_tensors(Folder(tmp_path / "out"), {})
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        rows = np.asarray(found[name].rows(0, len(values)), np.float32)
        assert rows.shape == values.shape
        limit = {"I": 0.2, "F": 1e-3}[found[name].dtype[0].upper()]
        assert np.linalg.norm(rows - values) <= limit * np.linalg.norm(values), name
    assert not failed(verify(tmp_path / "out", reference=source, tokens=L)) & {
        "structure",
        "weights",
    }


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["SkipSimplifiedLayerNormalization", "RMSNormalization"])
def test_another_epsilon(kind: str, folders: Path, tmp_path: Path) -> None:
    profile = "ort" if kind.startswith("Skip") else "standard"
    out = shutil.copytree(folders / f"{profile}-tables", tmp_path / "out")
    set_attribute(out, kind, "epsilon", 1e-3)
    assert {"logits", "probes"} <= failed(judge(out, folders / "model"))


def one_row_off(out: Path) -> None:
    for part in ("cos", "sin"):
        table = writable(out, f"{ROPE}{part}")
        table[200:] = table[199:-1].copy()


def one_value_off(out: Path) -> None:
    writable(out, f"{ROPE}cos")[3 * L + 5, 2] += 0.01


def all_rows_off(out: Path) -> None:
    for part in ("cos", "sin"):
        table = writable(out, f"{ROPE}{part}")
        table[:-1] = table[1:].copy()


@pytest.mark.torch
@pytest.mark.parametrize("fault", [one_row_off, one_value_off, all_rows_off])
def test_a_table_that_is_off_somewhere(
    fault: Callable[[Path], None], folders: Path, tmp_path: Path
) -> None:
    """The text ends before row 192: the table itself is read to its end."""
    out = shutil.copytree(folders / "ort-tables", tmp_path / "out")
    fault(out)
    report = judge(out, folders / "model")
    assert failed(report) & {"structure", "frequencies"}


def test_a_table_that_is_too_long_is_no_guard(folders: Path, tmp_path: Path) -> None:
    """config.json promises less than the table has, so a position past the context would get
    numbers.
    """
    import json

    out = shutil.copytree(folders / "ort-tables", tmp_path / "out")
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2 * L}))
    assert "structure" in failed(judge(out, folders / "model"))


@pytest.mark.torch
def test_a_wrong_switch_is_seen(tmp_path: Path) -> None:
    from onnx import numpy_helper

    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    source = save_checkpoint(tmp_path / "model", "llama", context=L)
    for bake in ("metadata", "tables"):
        out = tmp_path / f"out-{bake}"
        convert(
            source, out, ScalingRequest(kind="longrope", factor=4, parameters=factors), bake=bake
        )
        assert judge(out, source).ok
        name = f"{ROPE}switch"
        edit_graph(
            out,
            lambda m, n=name: initializer(m, n).CopyFrom(
                numpy_helper.from_array(np.int64(L // 2), n)
            ),
        )
        assert failed(judge(out, source)) & {"frequencies", "structure"}, bake


@pytest.mark.torch
@pytest.mark.parametrize("profile", PROFILES)
def test_a_negative_position_that_a_shift_brings_back_is_seen(profile: str, tmp_path: Path) -> None:
    """Past the switch of LongRoPE's tables, in a graph that lost its guard."""
    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    source, out = save_checkpoint(tmp_path / "model", "llama", context=L), tmp_path / "out"
    convert(
        source,
        out,
        ScalingRequest(kind="longrope", factor=4, parameters=factors),
        profile=profile,
        bake="tables",
    )
    assert judge(out, source).ok

    def change(model: Any) -> None:
        guard = next(
            node
            for node in model.graph.node
            if node.op_type == "Where" and "rope_below" in node.input
        )
        guard.op_type, kept = "Identity", guard.input[2]
        del guard.input[:]
        guard.input.append(kept)
        read = {name for node in model.graph.node for name in node.input}
        for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in read]:
            model.graph.initializer.remove(tensor)

    edit_graph(out, change)
    assert failed(judge(out, source)) == {"structure", "probes"}


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (
            lambda out: (out / DATA).write_bytes((out / DATA).read_bytes()[:100_000]),
            "too short or of another shape for",
        ),
        (lambda out: (out / DATA).unlink(), "no file beside the graph"),
        (
            lambda out: (out / "onnx" / "model.onnx").write_bytes(b"PK\x03\x04" * 50),
            "not a readable ONNX file",
        ),
        (lambda out: (out / "onnx" / "model.onnx").write_bytes(b""), "not written by ropeconv"),
        (lambda out: (out / "config.json").unlink(), "not a folder that ropeconv wrote"),
        (lambda out: (out / "genai_config.json").write_text("{"), "genai_config.json: not JSON"),
    ],
)
def test_a_broken_folder_is_refused_in_one_line(
    spoil: Callable[[Path], Any], text: str, folders: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(folders / "ort-tables", tmp_path / "out")
    spoil(out)
    with pytest.raises(CheckpointError, match=text) as refusal:
        judge(out, folders / "model")
    assert "\n" not in str(refusal.value)


def test_data_outside_the_folder_is_not_followed(folders: Path, tmp_path: Path) -> None:
    out = shutil.copytree(folders / "ort-tables", tmp_path / "out")

    def change(model: Any) -> None:
        tensor = initializer(model, "model.embed_tokens.weight")
        next(e for e in tensor.external_data if e.key == "location").value = "../../elsewhere"

    (tmp_path / "elsewhere").write_bytes(bytes(1 << 20))
    edit_graph(out, change)
    with pytest.raises(CheckpointError, match="no file beside the graph"):
        judge(out, folders / "model")
