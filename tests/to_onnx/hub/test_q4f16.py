"""4-bit blocks under float16: the operators on the CPU against exact arithmetic, what is refused,
and faults that the proof sees.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_onnx.quant._pack import Packed, pack_rows, scales_as, unpack_rows
from converters.to_onnx.quant._types import Blocks
from converters.to_onnx.read.folder import Folder
from ropeconv.errors import RopeconvError
from ropeconv.kit.casts import BadValueError
from ropeconv.proof.report import FAIL
from ropeconv.proof.run import verify
from tests.checkpoints import save_checkpoint
from tests.families import extra
from tests.to_onnx.onnx_folders import PI, convert, edit_graph
from tests.to_onnx.quant.test_faults_int4 import FAULTS as GRAPH_FAULTS

L = 64
CASES = [
    Blocks(bits, size, symmetric=symmetric)
    for bits, size, symmetric in product((4, 8), (16, 32, 128), (True, False))
]
COLUMNS = 192


def packed_rows(blocks: Blocks) -> Packed:
    rng = np.random.default_rng(0)
    rows = rng.standard_t(5, (24, COLUMNS)) * rng.uniform(0.01, 0.1, (24, 1))
    packed = pack_rows(rows.astype(np.float32), blocks)
    return replace(packed, scales=scales_as(packed.scales, "float16", blocks))


def run(kind: str, x: np.ndarray, packed: Packed, blocks: Blocks, **more: int) -> np.ndarray:
    """One operator in onnxruntime on float16 scales. x: float16 rows, or ids."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    product = kind == "MatMulNBits"
    codes = packed.codes if product else packed.codes.reshape(len(packed.codes), -1)
    values = {"codes": codes, "scales": packed.scales}
    if packed.zero_points is not None:
        values["zeros"] = packed.zero_points
    order = ["x", *values] if product else ["codes", "x", *[*values][1:]]
    said = {"bits": blocks.bits, "block_size": blocks.size, **more}
    node = helper.make_node(kind, order, ["y"], domain="com.microsoft", **said)
    dtype = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", dtype, [None] * x.ndim)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


def multiply(x: np.ndarray, packed: Packed, blocks: Blocks, level: int) -> np.ndarray:
    sizes = {"K": COLUMNS, "N": len(packed.scales), "accuracy_level": level}
    return run("MatMulNBits", x, packed, blocks, **sizes)


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Root of the mean square, relative."""
    return float(np.linalg.norm(found.astype(float) - wanted) / np.linalg.norm(wanted))


# measured: level 1 2.8e-4 (the rounding of the result), level 4 1.1e-2 (int8 activations)
LEVELS = {1: 6e-4, 4: 2e-2}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("blocks", CASES, ids=str)
def test_products_are_those_of_the_numbers_as_stored(blocks: Blocks, level: int) -> None:
    packed = packed_rows(blocks)
    x = np.random.default_rng(1).standard_normal((5, COLUMNS)).astype(np.float16)
    wanted = x.astype(float) @ unpack_rows(packed, blocks, columns=COLUMNS).astype(float).T
    assert error(multiply(x, packed, blocks, level), wanted) < LEVELS[level]


@pytest.mark.parametrize("blocks", [b for b in CASES if COLUMNS % b.size == 0], ids=str)
def test_rows_that_are_looked_up_are_those_as_stored(blocks: Blocks) -> None:
    packed = packed_rows(blocks)
    sizes = {"gather_axis": 0, "quantize_axis": 1}
    found = run("GatherBlockQuantized", np.arange(24), packed, blocks, **sizes)
    assert error(found, unpack_rows(packed, blocks, columns=COLUMNS)) < 6e-4


def test_scales_that_float16_cannot_hold_are_named() -> None:
    blocks = Blocks(4, 32, symmetric=True)
    for size in (1e6, 1e-8):
        rows = np.full((3, 64), 1e-3, np.float32)
        rows[1] = size if size > 1 else rows[1]
        rows = rows if size > 1 else np.full((3, 64), size, np.float32)
        with pytest.raises(BadValueError, match="is the scale of its block") as raised:
            scales_as(pack_rows(rows, blocks).scales, "float16", blocks)
        assert raised.value.row == (1 if size > 1 else 0)
    few = np.full((3, 64), 1e-2, np.float32)
    few[1] = 1e-9
    assert np.isfinite(scales_as(pack_rows(few, blocks).scales, "float16", blocks)).all()


def test_weights_too_small_for_float16_scales_are_refused_before_a_folder(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = save_checkpoint(tmp_path / "model", "llama", context=L)
    weights = load_file(source / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    small = {**weights, name: weights[name] * np.float32(1e-7)}
    save_file(small, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RopeconvError, match=r"up_proj.weight, row .*take --type int4") as raised:
        convert(source, tmp_path / "out", PI, type="q4f16")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()
    convert(source, tmp_path / "out", PI, type="int4")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("q4f16")
    source = save_checkpoint(root / "model", "llama", context=L)
    for profile in ("ort", "standard"):
        convert(source, root / profile, PI, type="q4f16", profile=profile)
    convert(source, root / "head", PI, type="q4f16", head_bits=8, block_size=64)
    return root


@pytest.mark.torch
@pytest.mark.parametrize("folder", ["ort", "standard", "head"])
def test_a_sound_folder_is_judged_by_float16s_own_error(folder: str, folders: Path) -> None:
    report = verify(folders / folder, tokens=2 * L)
    assert report.ok, report
    judged, told = report.measured
    assert (judged.judged, told.judged) == (True, False)
    assert judged.whole.nmse < 1e-5
    assert told.whole.nmse > 1e-4
    assert "with the file's own q4f16 weights" in report.verdict


@pytest.mark.torch
@pytest.mark.parametrize("family", ["gemma2", "phi3", "qwen3_moe", "lfm2"])
def test_every_kind_of_layer_is_proven(family: str, tmp_path: Path) -> None:
    context = 256 if family == "phi3" else L  # of its own config
    source = save_checkpoint(tmp_path / "model", family, context=context, **extra(family))
    convert(source, tmp_path / "out", PI, type="q4f16")
    report = verify(tmp_path / "out", tokens=2 * L)
    assert report.ok, report


@pytest.mark.torch
@pytest.mark.parametrize("fault", GRAPH_FAULTS)
def test_a_fault_of_the_graph_turns_the_verdict(fault: str, folders: Path, tmp_path: Path) -> None:
    out = shutil.copytree(folders / "ort", tmp_path / "out")
    edit_graph(out, GRAPH_FAULTS[fault])
    report = verify(out, reference=folders / "model", tokens=2 * L)
    assert {rung.name for rung in report.rungs if rung.status == FAIL} & {"logits", "structure"}


def write_array(graph: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change an initializer in its data file."""
    array = Folder(graph).arrays[name]
    assert isinstance(array, np.memmap)
    writable = np.memmap(array.filename, array.dtype, "r+", array.offset, array.shape)
    change(writable)
    writable.flush()


def swapped_rows(values: Any) -> None:
    values[[4, 9]] = values[[9, 4]]


def larger(factor: float) -> Callable[[Any], None]:
    def change(scales: Any) -> None:
        scales[:] = scales * np.float16(factor)

    return change


def one_larger(scales: Any) -> None:
    scales[3, 1] *= 1.3


# what is changed -> (which array, how)
WEIGHT_FAULTS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "the scale of one block": ("_scales", one_larger),
    "the scale of one block negated": ("_scales", lambda s: s.__setitem__((3, 1), -s[3, 1])),
    "scales one percent too large": ("_scales", larger(1.01)),
    "two rows of codes in each other's place": ("_codes", swapped_rows),
    "halves of a byte": (
        "_codes",
        lambda c: c.__setitem__((2, 0), (c[2, 0] >> 4) | (c[2, 0] << 4)),
    ),
    "zero points of a row": ("_zero_points", lambda z: z.__setitem__(5, z[5] ^ 0x22)),
}


@pytest.mark.torch
@pytest.mark.parametrize("fault", WEIGHT_FAULTS)
def test_a_fault_of_the_weights_turns_the_verdict(
    fault: str, folders: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(folders / "ort", tmp_path / "out")
    end, change = WEIGHT_FAULTS[fault]
    write_array(out / "onnx" / "model.onnx", f"model.layers.1.mlp.down_proj.weight{end}", change)
    report = verify(out, reference=folders / "model", tokens=8)
    assert "weights" in {rung.name for rung in report.rungs if rung.status == FAIL}, report
