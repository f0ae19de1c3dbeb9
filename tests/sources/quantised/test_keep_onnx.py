"""--type keep: a quantised source's own codes in MatMulNBits, as onnxruntime itself multiplies by
them, and what cannot be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ropeconv
from converters.to_onnx import TARGET
from converters.to_onnx.data import kept_rows
from converters.to_onnx.quant._keep import kept_blocks
from ropeconv.errors import CannotExpress
from ropeconv.extend import ScalingRequest
from ropeconv.kit.views import TableTensor
from ropeconv.prepare import prepare
from ropeconv.proof.run import verify
from ropeconv.proof.weights.compare import compare_weights
from ropeconv.sources.low_rank import LowRank
from tests.checkpoints import save_checkpoint
from tests.command_line import refused, report
from tests.sources.quantised import folders, test_bitsandbytes, test_fp8
from tests.sources.quantised import test_compressed_tensors as compressed
from tests.sources.quantised import test_gptq as grouped

PI = ScalingRequest(kind="linear", factor=2)
KINDS = {
    **{kind: grouped.KINDS[kind] for kind in ("4 bits", "8 bits", "symmetric", "one group")},
    **{kind: grouped.KINDS[kind] for kind in ("v2", "no g_idx", "AutoRound", "AWQ")},
    "groups of 48": (grouped.gptq_pack(4, group=48), grouped.says(4, group_size=48)),
    "groups of 16": (grouped.gptq_pack(4, group=16), grouped.says(4, group_size=16)),
    **{f"words, {kind}": compressed.KINDS[kind] for kind in ("4 bits", "4 bits, symmetric")},
    **{f"bytes, {kind}": compressed.KINDS[kind] for kind in ("8 bits", "8 bits, not symmetric")},
}


def is_down(name: str) -> bool:
    """Whether it is a matrix with rows of 96, which are two groups of 48."""
    return name.endswith("down_proj.weight")


def quantised(kind: str) -> Callable[[str], bool]:
    return is_down if kind == "groups of 48" else folders.is_linear


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.plain_model(tmp_path_factory.mktemp("keep") / "plain")


def made(kind: str, source: Path, out: Path) -> dict[str, torch.Tensor]:
    """A folder of this kind; the weights that it means."""
    pack, settings = KINDS[kind]
    return folders.write(source, out, pack, settings=settings, quantised=quantised(kind))


def keep(folder: Path, out: Path, **options: Any) -> Path:
    ropeconv.convert(folder, "onnx", out, scaling=PI, type="keep", **options)
    return out


def products(out: Path) -> dict[tuple[str, ...], np.ndarray]:
    """Tensors -> their rows, of every MatMulNBits: the products of the identity in onnxruntime, all
    at once and one at a time, which take other kernels.
    """
    import onnx

    model = onnx.load(out / "onnx" / "model.onnx")
    arrays = {one.name: one for one in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    found = {}
    for node in nodes:
        inputs = [name for name in node.input[1:4] if name]
        numbers = _rows(node, [arrays[name] for name in inputs])
        found[tuple(inputs[0].removesuffix("_codes").split("+"))] = numbers
    return found


def _rows(node: Any, arrays: list[Any]) -> np.ndarray:
    """(N, K): the matrix of one node, with float32 activations."""
    import onnx
    import onnxruntime as ort

    said = {one.name: one for one in node.attribute}
    said["accuracy_level"].i = 1
    columns, rows = said["K"].i, said["N"].i
    del node.input[:], node.output[:]
    node.input.extend(["x", *(one.name for one in arrays)])
    node.output.append("y")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ports = [helper.make_tensor_value_info(*p) for p in (("x", kind, ["m", columns]),)]
    outs = [helper.make_tensor_value_info("y", kind, ["m", rows])]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "one", ports, outs, arrays)
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options)
    identity = np.eye(columns, dtype=np.float32)
    (whole,) = session.run(None, {"x": identity})
    for row in range(0, columns, 7):
        (one,) = session.run(None, {"x": identity[row : row + 1]})
        assert np.array_equal(one[0], whole[row])
    return np.asarray(whole.T)


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS)
def test_onnxruntime_multiplies_by_the_very_numbers(
    kind: str, source: Path, tmp_path: Path
) -> None:
    meant = made(kind, source, tmp_path / "quantised")
    found = products(keep(tmp_path / "quantised", tmp_path / "onnx"))
    assert {name for names in found for name in names} == set(filter(quantised(kind), meant))
    for names, rows in found.items():
        assert np.array_equal(rows, torch.cat([meant[name] for name in names]).numpy()), names


@pytest.mark.torch
def test_the_report_and_the_proof_say_so(source: Path, tmp_path: Path, capsys: Any) -> None:
    made("4 bits", source, tmp_path / "quantised")
    out = tmp_path / "onnx"
    arguments = ["onnx", str(tmp_path / "quantised"), "--type", "keep", "-o", str(out)]
    told = report([*arguments, "--pi-factor", "2"], capsys)
    assert told["kept"] == "the codes of 14 tensors, bit for bit (int4/32); the others are floats"
    assert f"| kept | {told['kept']} |" in (out / "README.md").read_text()
    proof = verify(out, tokens=160)
    assert proof.ok
    (weights,) = (rung for rung in proof.rungs if rung.name == "weights")
    assert weights.summary == "21 tensors, 21 exact"
    judged = [one for one in proof.measured if one.judged]
    assert judged
    assert all(one.whole.nmse < 2e-9 for one in judged)  # float32's own limit


def edited(out: Path, leaf: str, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    """Other bytes for the first initializer whose name ends so."""
    import onnx

    model = onnx.load(out / "onnx" / "model.onnx", load_external_data=False)
    tensor = next(one for one in model.graph.initializer if one.name.endswith(leaf))
    place = {entry.key: entry.value for entry in tensor.external_data}
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    data = np.memmap(
        out / "onnx" / place["location"],
        dtype,
        "r+",
        offset=int(place["offset"]),
        shape=tuple(tensor.dims),
    )
    changed = edit(np.array(data))
    assert not np.array_equal(changed, data)
    data[:] = changed
    data.flush()


def turned(array: np.ndarray) -> np.ndarray:
    return array.T.reshape(array.shape)


FAULTS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "a zero off by one": ("_zero_points", lambda zeros: zeros ^ np.eye(*zeros.shape, dtype="u1")),
    "halves of a byte in the other order": ("_codes", lambda codes: codes << 4 | codes >> 4),
    "scales of other groups": ("_scales", turned),
    "a scale in its last bit": ("_scales", lambda s: (s.view("u4") ^ 1).view("f4")),
}


def weights_found(folder: Path, out: Path) -> list[str]:
    """What the proof's rung of weights finds."""
    model = prepare(folder, PI)
    artefact = TARGET.open_artefact(out)
    limits = TARGET.block_limits
    mine, theirs = artefact.checkpoint.tensors, model.checkpoint.tensors
    return compare_weights(mine, theirs, model.weights, limits=limits).findings


def test_planted_faults_in_the_file_are_seen(source: Path, tmp_path: Path) -> None:
    made("4 bits", source, tmp_path / "quantised")
    for number, (leaf, edit) in enumerate(FAULTS.values()):
        out = keep(tmp_path / "quantised", tmp_path / f"onnx-{number}")
        assert weights_found(tmp_path / "quantised", out) == []
        edited(out, leaf, edit)
        assert len(weights_found(tmp_path / "quantised", out)) >= 1


@pytest.mark.parametrize("kind", ["one group", "groups of 48", "AWQ", "bytes, 8 bits"])
def test_any_cut_into_slabs_gives_the_same_bytes(kind: str, source: Path, tmp_path: Path) -> None:
    made(kind, source, tmp_path / "quantised")
    model = prepare(tmp_path / "quantised", None)
    name = "model.layers.0.mlp.down_proj.weight"
    tensor = model.tensor(name)
    blocks = kept_blocks(name, tensor)
    assert blocks is not None
    whole = kept_rows(name, tensor, blocks, 0, 64)
    for step in (1, 7, 40):
        cuts = [(start, min(64, start + step)) for start in range(0, 64, step)]
        slabs = [kept_rows(name, tensor, blocks, *cut) for cut in cuts]
        for part, made_of in zip(whole, zip(*slabs, strict=True), strict=True):
            assert np.array_equal(part, np.concatenate(made_of))


@pytest.mark.torch
def test_matrices_of_a_layer_may_differ(source: Path, tmp_path: Path) -> None:
    """v in 8 bits, and a gate that was left in floats: products of their own."""

    def pack(stem: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
        bits = 8 if stem.endswith("v_proj") else 4
        return grouped.gptq_pack(bits)(stem, weight, generator)

    settings = grouped.says(4, dynamic={"+:.*v_proj": {"bits": 8}, "-:.*gate_proj": {}})
    meant = folders.write(
        source,
        tmp_path / "quantised",
        pack,
        settings=settings,
        quantised=lambda name: folders.is_linear(name) and "gate_proj" not in name,
    )
    out = keep(tmp_path / "quantised", tmp_path / "onnx")
    found = products(out)
    assert sum(len(names) for names in found) == 12
    for names, rows in found.items():
        assert np.array_equal(rows, torch.cat([meant[name] for name in names]).numpy())
    assert verify(out, tokens=160).ok


@pytest.mark.torch
def test_a_head_in_codes_and_rows_that_fill_no_block(tmp_path: Path) -> None:
    odd = save_checkpoint(tmp_path / "odd", "llama", context=folders.L, intermediate_size=72)
    pack, settings = compressed.KINDS["4 bits, rows"]
    meant = folders.write(
        odd,
        tmp_path / "quantised",
        pack,
        settings=settings,
        quantised=lambda name: folders.is_linear(name) or name == "lm_head.weight",
    )
    out = keep(tmp_path / "quantised", tmp_path / "onnx")
    found = products(out)
    assert ("lm_head.weight",) in found
    for names, rows in found.items():
        assert np.array_equal(rows, torch.cat([meant[name] for name in names]).numpy())
    assert verify(out, tokens=160).ok


@pytest.mark.torch
def test_operators_of_ai_onnx_around_the_blocks(source: Path, tmp_path: Path) -> None:
    made("AWQ", source, tmp_path / "quantised")
    assert verify(
        keep(tmp_path / "quantised", tmp_path / "onnx", profile="standard"), tokens=160
    ).ok


@pytest.mark.torch
@pytest.mark.parametrize(("family", "bits"), [("qwen3_moe", 4), ("qwen3_moe", 8), ("qwen2_moe", 4)])
def test_experts(family: str, bits: int, tmp_path: Path) -> None:
    plain = save_checkpoint(tmp_path / "plain", family, context=folders.L)
    pack, settings = grouped.KINDS[f"{bits} bits"]
    folders.write(plain, tmp_path / "quantised", pack, settings=settings)
    out = keep(tmp_path / "quantised", tmp_path / "onnx")
    proof = verify(out, tokens=160)
    assert proof.ok
    (weights,) = (rung for rung in proof.rungs if rung.name == "weights")
    count, _, exact = weights.summary.partition(" tensors, ")
    assert exact == f"{count} exact"


def test_codes_under_an_adapter(source: Path, tmp_path: Path) -> None:
    """What is merged into codes has none."""
    made("4 bits", source, tmp_path / "quantised")
    base = prepare(tmp_path / "quantised", None).tensor("model.layers.0.self_attn.q_proj.weight")
    rows = TableTensor(np.zeros((1, 64), np.float32))
    merged = LowRank("q_proj", base, rows, TableTensor(np.zeros((64, 1), np.float32)), 1.0)
    with pytest.raises(CannotExpress, match="q_proj has codes that are merged with other numbers"):
        kept_blocks("q_proj", merged)


REFUSED: dict[str, tuple[tuple[folders.Pack, Mapping[str, Any]], str]] = {
    "act-order": (
        grouped.KINDS["act-order"],
        "tensor model.layers.0.self_attn.q_proj.weight has 4-bit codes in act-order, and "
        "MatMulNBits takes integers of 4 or 8 bits",
    ),
    "3 bits": (grouped.KINDS["3 bits"], "q_proj.weight has 3-bit codes in groups of 32, and"),
    "2 bits": (compressed.KINDS["2 bits"], "q_proj.weight has 2-bit codes in groups of 32, and"),
    "groups of 8": (
        (grouped.gptq_pack(4, group=8), grouped.says(4, group_size=8)),
        "q_proj.weight has 4-bit codes in groups of 8, and",
    ),
    "FP8": (test_fp8.KINDS["blocks"], "q_proj.weight has 8-bit floats, and"),
    "FP8, compressed-tensors": (compressed.KINDS["floats of rows"], "q_proj.weight has 8-bit f"),
    "int8, bitsandbytes": (test_bitsandbytes.KINDS["int8"], "has 8-bit codes of a row's largest"),
    "nf4": (test_bitsandbytes.KINDS["nf4"], "q_proj.weight has 4-bit codes of a table, and"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_codes_that_no_block_holds(kind: str, source: Path, tmp_path: Path, capsys: Any) -> None:
    (pack, settings), reason = REFUSED[kind]
    folders.write(source, tmp_path / "quantised", pack, settings=settings)
    check_refused(tmp_path / "quantised", reason, capsys)


def check_refused(folder: Path, reason: str, capsys: Any, *more: str) -> None:
    out = folder.parent / "onnx"
    line = refused(["onnx", str(folder), "--type", "keep", "-o", str(out), *more], capsys)
    assert reason in line
    assert not out.exists()


def test_sources_without_such_codes(source: Path, tmp_path: Path, capsys: Any) -> None:
    check_refused(source, "plain is not quantised, so there are no codes to keep", capsys)
    ropeconv.convert(source, "gguf", tmp_path / "model.gguf", type="Q8_0")
    check_refused(tmp_path / "model.gguf", "has Q8_0 blocks, and MatMulNBits takes", capsys)
    made("4 bits", source, tmp_path / "quantised")
    reason = "--type keep has the source's own blocks; leave --block-size"
    check_refused(tmp_path / "quantised", reason, capsys, "--block-size", "64")


def test_a_scale_that_is_no_number(source: Path, tmp_path: Path, capsys: Any) -> None:
    made("4 bits", source, tmp_path / "quantised")
    spoil = folders.change("up_proj.scales", lambda scales: scales * torch.nan)
    spoil(tmp_path / "quantised")
    reason = "up_proj.weight, row 0, column 0: value nan is the scale of its group"
    check_refused(tmp_path / "quantised", reason, capsys)
