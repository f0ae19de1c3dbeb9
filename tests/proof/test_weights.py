"""The weights rung: float types hold the source's numbers, and block types what they can."""

from __future__ import annotations

import numpy as np
import pytest

from ropeconv.arch.blocks.weight import Role, Weight
from tests.proof.tensors import LIMITS, Rows, quantize, weight_findings

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


@pytest.mark.parametrize("kind", [kind for kind, limit in LIMITS.items() if not limit.projected])
def test_block_types_pass_as_ggml_writes_them_and_fail_scaled(kind: str) -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

    source = np.random.default_rng(1).normal(scale=0.02, size=(96, 512)).astype(np.float32)

    def stored(values: np.ndarray) -> Rows:
        return Rows(
            np.asarray(quants.dequantize(quantize(values, kind), GGMLQuantizationType[kind])), kind
        )

    assert GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0] > 1
    assert weight_findings(stored(source), Rows(source)) == []
    scale = np.float32(1.03 if kind in UNSEEN else 1.01)
    for fault in (source * scale, source[:, ::-1].copy(), source * np.float32(0)):
        assert len(weight_findings(stored(fault), Rows(source))) == 1


ROW_FAULTS = {
    "a row of zeros": lambda rows, _: rows.__setitem__(301, 0),
    "a negated row": lambda rows, _: rows.__setitem__(301, -rows[301]),
    "two rows swapped": lambda rows, _: rows.__setitem__([301, 302], rows[[302, 301]]),
    "a block of zeros": lambda rows, size: rows.__setitem__((301, slice(256, 256 + size)), 0),
}


@pytest.mark.parametrize("fault", ROW_FAULTS)
@pytest.mark.parametrize("kind", [kind for kind, limit in LIMITS.items() if not limit.projected])
def test_one_row_or_block_among_many_is_seen(kind: str, fault: str) -> None:
    """And was not by what holds over the whole tensor."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

    number = GGMLQuantizationType[kind]
    noise = np.random.default_rng(2).standard_t(3, size=(2048, 512))
    source = (0.02 * noise).astype(np.float32)
    stored = np.array(quants.dequantize(quantize(source, kind), number))
    assert weight_findings(Rows(stored, kind), Rows(source)) == []
    ROW_FAULTS[fault](stored, GGML_QUANT_SIZES[number][0])
    (finding,) = weight_findings(Rows(stored, kind), Rows(source))
    assert finding.startswith(f"w ({kind}) [301, ")


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    ("size", "symmetric"), [(16, False), (32, True), (256, False), (256, True)]
)
def test_blocks_of_onnxruntime_pass_whatever_their_size_and_fail_scaled(
    bits: int, size: int, symmetric: bool
) -> None:
    from converters.to_onnx.quant._pack import pack_rows, unpack_rows
    from converters.to_onnx.quant._types import Blocks

    blocks = Blocks(bits, size, symmetric=symmetric)
    source = np.random.default_rng(1).laplace(scale=0.02, size=(96, 512)).astype(np.float32)

    def stored(values: np.ndarray) -> Rows:
        return Rows(unpack_rows(pack_rows(values, blocks), blocks, columns=512), f"int{bits}")

    assert weight_findings(stored(source), Rows(source)) == []
    for fault in (source * np.float32(1.01), source[:, ::-1].copy(), source * np.float32(0)):
        assert len(weight_findings(stored(fault), Rows(source))) == 1
