"""The weights rung: float types hold the source's numbers, and block types what they can."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters.to_onnx.quant._types import Blocks
from ropeconv.arch.blocks.weight import Role, Weight
from ropeconv.arch.stack import Place
from ropeconv.proof.weights.blocks import Slab, allowed_errors
from ropeconv.proof.weights.compare import compare_weights
from tests.proof.tensors import LIMITS, MATRIX, Rows, in_ggml, weight_findings

ONNX = [
    Blocks(bits, size, symmetric=symmetric)
    for bits in (4, 8)
    for size in (16, 32, 256)
    for symmetric in (False, True)
]
SHIFTED = Weight(Role.OUTPUT_NORM, "w", (64,), offset=1.0)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_float_types_must_hold_the_source_rounded_once(kind: str) -> None:
    import torch

    source = np.random.default_rng(0).normal(size=(9, 64)).astype(np.float32)
    dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind]
    stored = torch.from_numpy(source).to(dtype).float().numpy()  # rounded by torch, not by NumPy
    assert weight_findings(Rows(stored, kind), Rows(source)) == []
    for fault in (
        stored * np.float32(1.01),
        stored[::-1].copy(),
        np.where(np.arange(64) == 9, np.nan, stored),
    ):
        assert len(weight_findings(Rows(fault, kind), Rows(source))) == 1
    near = stored.copy()
    near[4, 7] = np.nextafter(near[4, 7], 9, dtype=np.float32)
    assert "w[4, 7] is" in weight_findings(Rows(near, kind), Rows(source))[0]


def test_a_norm_stored_as_one_plus_w_may_round_there() -> None:
    source = np.random.default_rng(0).normal(scale=0.1, size=64).astype(np.float32)
    viewed = (source + np.float32(1)) - np.float32(1)
    assert not np.array_equal(viewed, source)
    assert weight_findings(Rows(viewed), Rows(source), SHIFTED) == []
    assert len(weight_findings(Rows(viewed), Rows(source))) == 1
    assert len(weight_findings(Rows(viewed * np.float32(1.001)), Rows(source), SHIFTED)) == 1


UNSEEN = {"Q5_1", "Q2_K"}  # 1 % can pass: see the limits
# of few bits, where more can
LOOSE = {kind for kind in LIMITS if kind.startswith(("IQ1", "IQ2", "IQ3", "TQ", "MXFP4"))}
ROUGH = {"IQ2_XXS", "TQ1_0", "TQ2_0"}  # a block that is lost can


@pytest.mark.parametrize("kind", [kind for kind, limit in LIMITS.items() if not limit.projected])
def test_block_types_pass_as_ggml_writes_them_and_fail_scaled(kind: str) -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    source = np.random.default_rng(1).normal(scale=0.02, size=(96, 512)).astype(np.float32)

    def stored(values: np.ndarray) -> Rows:
        return Rows(in_ggml(values, kind), kind)

    assert GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0] > 1
    assert weight_findings(stored(source), Rows(source)) == []
    scale = np.float32(1.7 if kind in LOOSE else 1.03 if kind in UNSEEN else 1.01)
    for fault in (source * scale, source[:, ::-1].copy(), source * np.float32(0)):
        assert len(weight_findings(stored(fault), Rows(source))) == 1


WEIGHED = {kind: limit.weighed or limit for kind, limit in LIMITS.items() if not limit.projected}


@pytest.mark.parametrize("kind", WEIGHED)
def test_weighed_blocks_pass_their_limits_and_faults_do_not(kind: str) -> None:
    """Columns that matter e^4 times others; planted faults: a tensor that is lost, turned round,
    twice as large, another row's numbers.
    """
    rng = np.random.default_rng(6)
    source = (0.02 * rng.laplace(size=(48, 512))).astype(np.float32)
    stored = in_ggml(source, kind, np.exp(2 * rng.normal(size=512)))

    def findings(values: np.ndarray) -> list[str]:
        mine, theirs = {"w": Rows(values, kind)}, {"w": Rows(source)}
        return compare_weights(mine, theirs, {"w": Place(MATRIX)}, limits=WEIGHED).findings

    assert findings(stored) == []
    swapped = stored.copy()
    swapped[[3, 4]] = stored[[4, 3]]
    for fault in (0 * stored, stored[:, ::-1], 2 * stored, swapped):
        assert len(findings(fault)) == 1
    judged = {"w": Rows(stored, kind)}, {"w": Rows(source)}, {"w": Place(MATRIX)}
    if kind in ("Q4_K", "Q6_K", "IQ4_NL"):  # the plain limits take it for a fault
        assert compare_weights(*judged, limits=LIMITS).findings


GGML = [kind for kind, limit in LIMITS.items() if not limit.projected]
FAULTS: dict[str, Any] = {
    "a row of zeros": lambda rows, _: rows.__setitem__(301, 0),
    "a negated row": lambda rows, _: rows.__setitem__(301, -rows[301]),
    "two rows swapped": lambda rows, _: rows.__setitem__([301, 302], rows[[302, 301]]),
    "a block of zeros": lambda rows, size: rows.__setitem__((301, slice(256, 256 + size)), 0),
}


def smallest_block(kind: str) -> int:
    """Neighbours that share a scale; of Q2_K, whose rounding hides those, all that share a
    float16.
    """
    steps = LIMITS[kind].steps
    return LIMITS[kind].block if steps is None else steps.block


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", GGML)
def test_one_row_or_block_among_many_is_seen(kind: str, fault: str) -> None:
    noise = np.random.default_rng(2).standard_normal((2048, 512))
    source = (0.02 * noise).astype(np.float32)
    stored = in_ggml(source, kind)
    assert weight_findings(Rows(stored, kind), Rows(source)) == []
    FAULTS[fault](stored, smallest_block(kind))
    if kind in ROUGH and "zeros" in fault:
        return
    (finding,) = weight_findings(Rows(stored, kind), Rows(source))
    assert finding.startswith(f"w ({kind}) [301, ")


def test_every_block_of_smollm2_like_noise_is_seen_when_it_is_lost() -> None:
    """One of each kind among 65536, whatever its place: none hides behind its neighbours."""
    rng = np.random.default_rng(4)
    source = (0.02 * rng.laplace(size=(64, 1024))).astype(np.float32)
    for kind in set(GGML) - ROUGH:
        stored, size = in_ggml(source, kind), smallest_block(kind)
        for row, place in zip(
            rng.permutation(64)[:16], rng.permutation(1024 // size), strict=False
        ):
            wrong = stored.copy()
            wrong[row, place * size : (place + 1) * size] = 0
            (finding,) = weight_findings(Rows(wrong, kind), Rows(source))
            assert f"[{row}, " in finding


HOSTILE: dict[str, Any] = {
    "an outlier in every row": lambda x: np.where(np.arange(512) == 7, 100 * x, x),
    "outliers everywhere": lambda x: np.where(
        np.arange(x.size).reshape(x.shape) % 61 == 0, 50 * x, x
    ),
    "one sign": np.abs,
    "far from zero": lambda x: 1 + 0.01 * x,
    "two values": np.sign,
    "one value a block": lambda x: np.where(np.arange(512) % 32 == 0, x, 0),
    "rows of other sizes": lambda x: x * np.float32(10.0) ** -np.arange(len(x))[:, None],
    "blocks of other sizes": lambda x: x * np.float32(3.0) ** -(np.arange(512) // 16 % 9),
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_rounding_alone_is_no_fault_whatever_the_numbers(shape: str) -> None:
    from converters.to_onnx.quant._pack import pack_rows, unpack_rows

    noise = 0.02 * np.random.default_rng(3).standard_normal((24, 512))
    source = HOSTILE[shape](noise).astype(np.float32)
    wrong = {kind: blocks_wrong(in_ggml(source, kind), source, kind) for kind in GGML}
    for blocks in ONNX:
        stored = unpack_rows(pack_rows(source, blocks), blocks, columns=512)
        wrong[blocks.name] = blocks_wrong(stored, source, blocks.name)
    assert {kind: count for kind, count in wrong.items() if count} == {}


def blocks_wrong(stored: np.ndarray, source: np.ndarray, kind: str) -> int:
    """How many blocks are beyond their own steps."""
    steps = LIMITS[kind].steps
    if steps is None:
        return 0
    slab = Slab(stored, source, steps.block)
    return int((np.sqrt(slab.errors / slab.size) > allowed_errors(slab, steps)).sum())


@pytest.mark.parametrize("blocks", ONNX, ids=lambda blocks: blocks.name)
def test_blocks_of_onnxruntime_pass_whatever_their_size_and_fail_scaled(blocks: Blocks) -> None:
    from converters.to_onnx.quant._pack import pack_rows, unpack_rows

    source = np.random.default_rng(1).laplace(scale=0.02, size=(96, 512)).astype(np.float32)

    def stored(values: np.ndarray) -> Rows:
        return Rows(unpack_rows(pack_rows(values, blocks), blocks, columns=512), blocks.name)

    assert weight_findings(stored(source), Rows(source)) == []
    for fault in (source * np.float32(1.01), source[:, ::-1].copy(), source * np.float32(0)):
        assert len(weight_findings(stored(fault), Rows(source))) == 1


BLOCK_FAULTS: dict[str, Any] = {
    "codes of zeros": lambda packed, zero: packed.codes.__setitem__((301, 1), zero),
    "a scale 1.6 times as large": lambda packed, _: packed.scales.__setitem__(
        (301, 1), 1.6 * packed.scales[301, 1]
    ),
    # of the first block: the low half of the first byte
    "a zero point": lambda packed, _: packed.zero_points.__setitem__(
        (301, 0), packed.zero_points[301, 0] ^ 1
    ),
}
ASKED = [
    (fault, blocks)
    for fault in BLOCK_FAULTS
    for blocks in ONNX
    if not (blocks.symmetric and fault == "a zero point")
]


@pytest.mark.parametrize(("fault", "blocks"), ASKED, ids=lambda value: getattr(value, "name", None))
def test_one_block_of_onnxruntime_is_seen(fault: str, blocks: Blocks) -> None:
    from converters.to_onnx.quant._pack import pack_rows, unpack_rows

    source = (0.02 * np.random.default_rng(2).laplace(size=(1024, 512))).astype(np.float32)
    packed = pack_rows(source, blocks)
    BLOCK_FAULTS[fault](packed, 0x88 if blocks.bits == 4 else 128)
    stored = unpack_rows(packed, blocks, columns=512)
    (finding,) = weight_findings(Rows(stored, blocks.name), Rows(source))
    assert finding.startswith(f"w ({blocks.name}) [301, ")


def test_a_row_that_no_block_ends_is_judged_to_its_end() -> None:
    from converters.to_onnx.quant._pack import pack_rows, unpack_rows

    blocks = Blocks(4, 32, symmetric=False)
    source = (0.02 * np.random.default_rng(2).laplace(size=(64, 100))).astype(np.float32)
    stored = unpack_rows(pack_rows(source, blocks), blocks, columns=100)
    assert weight_findings(Rows(stored, blocks.name), Rows(source)) == []
    stored[9, 96:] = 0
    (finding,) = weight_findings(Rows(stored, blocks.name), Rows(source))
    assert "[9, 96:100]" in finding
