"""The proof's arithmetic against torch's own functions, and its limits against files that are
slightly wrong.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from converters.to_gguf.quant.types import FILE_TYPES
from ropeconv import registry
from ropeconv.arch.blocks.weight import Role, Weight
from ropeconv.arch.stack import Place
from ropeconv.errors import CannotExpress, CheckpointError
from ropeconv.gates import Gates
from ropeconv.proof.compare import band_edges, compare_logits, pair_blocks
from ropeconv.proof.frequencies import compare_frequencies
from ropeconv.proof.reference.rotary import Rotary
from ropeconv.proof.report import FAIL, OK, Measured, Report, Rung, to_json
from ropeconv.proof.rungs import gate_findings, loss_rungs
from ropeconv.proof.text import Pass, plan_passes, wanted_tokens
from ropeconv.proof.weights import compare_weights
from ropeconv.rope.spec import Frequencies

VOCAB, TOTAL, TRAINED = 37, 50, 32
GGUF = registry.targets()["gguf"]
LIMITS = {k: v for target in registry.targets().values() for k, v in target.block_limits.items()}


def logit_gates(file_type: str, *, activation: str) -> Gates:
    """The GGUF target's limits for a model of this activation."""
    stack: Any = SimpleNamespace(activations=frozenset({activation}), block_types=frozenset)
    return GGUF.gates(file_type, stack)


@pytest.fixture(scope="module")
def logits() -> tuple[np.ndarray, np.ndarray, list[int]]:
    rng = np.random.default_rng(0)
    reference = rng.normal(scale=3, size=(TOTAL, VOCAB)).astype(np.float32)
    artefact = (reference + rng.normal(scale=0.3, size=reference.shape)).astype(np.float32)
    return reference, artefact, [int(i) for i in rng.integers(0, VOCAB, TOTAL)]


def cut(array: np.ndarray, *sizes: int) -> list[np.ndarray]:
    return np.split(array, np.cumsum(sizes))


def test_metrics_are_those_of_torch(logits: Any) -> None:
    import torch
    from torch.nn import functional

    reference, artefact, ids = logits
    # blocks cut differently on each side must not matter
    ((bands, whole),) = compare_logits(
        [cut(reference, 7, 20)], cut(artefact, 13), ids, trained=TRAINED
    )
    for band in (*bands, whole):
        part = slice(band.start, band.stop)
        a, b = (torch.from_numpy(x[part]).double() for x in (reference, artefact))
        kl = functional.kl_div(
            b.log_softmax(-1), a.log_softmax(-1), log_target=True, reduction="none"
        ).sum(-1)
        variance = a.var(dim=-1, unbiased=False).sum()
        assert band.nmse == pytest.approx(
            float(functional.mse_loss(b, a, reduction="none").mean(-1).sum() / variance)
        )
        assert band.kl == pytest.approx(float(kl.mean()))
        assert (band.kl_max, band.kl_at) == (
            pytest.approx(float(kl.max())),
            band.start + int(kl.argmax()),
        )
        assert band.max_abs == pytest.approx(float((a - b).abs().max()))
        assert band.max_abs_at == band.start + int((a - b).abs().max(-1).values.argmax())
        assert band.top1 == pytest.approx(float((a.argmax(-1) == b.argmax(-1)).double().mean()))
        stop = min(band.stop, TOTAL - 1)
        targets = torch.tensor(ids[band.start + 1 : stop + 1])
        for side, loss in ((a, band.loss_reference), (b, band.loss_artefact)):
            assert loss == pytest.approx(
                float(functional.cross_entropy(side[: len(targets)], targets))
            )


def test_equal_logits_measure_zero_and_one_moved_value_is_located(logits: Any) -> None:
    reference, _, ids = logits
    ((_, whole),) = compare_logits([[reference]], [reference.copy()], ids, trained=TRAINED)
    assert (whole.nmse, whole.kl, whole.max_abs, whole.top1, whole.loss_difference) == (
        0,
        0,
        0,
        1,
        0,
    )
    moved = reference.copy()
    moved[41, 5] += 0.5
    ((bands, whole),) = compare_logits([[reference]], [moved], ids, trained=TRAINED)
    assert (whole.nmse_at, whole.max_abs_at, whole.kl_at) == (41, 41, 41)
    assert [band.nmse > 0 for band in bands] == [band.start <= 41 < band.stop for band in bands]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_keep_no_limit(value: float, logits: Any) -> None:
    reference, _, ids = logits
    broken = reference.copy()
    broken[3, 3] = value
    with np.errstate(invalid="ignore"):
        ((bands, _),) = compare_logits([[reference]], [broken], ids, trained=TRAINED)
    assert bands[0].nmse_at == 3
    found = gate_findings(bands[0], Gates(1.0, 1.0, 0.0, 10.0))
    assert len(found) >= 2
    assert gate_findings(bands[-1], Gates(1.0, 1.0, 0.0, 10.0)) == []


def test_each_limit_can_fail_alone(logits: Any) -> None:
    reference, artefact, ids = logits
    ((_, band),) = compare_logits([[reference]], [artefact], ids, trained=TRAINED)
    wide = Gates(nmse=1.0, kl=1.0, top1=0.0, loss=10.0)
    assert gate_findings(band, wide) == []
    for field, value in (
        ("nmse", band.nmse * 0.99),
        ("kl", band.kl * 0.99),
        ("top1", band.top1 + 0.01),
        ("loss", 0.0),
    ):
        lines = gate_findings(band, replace(wide, **{field: value}))
        assert len(lines) == 1
        assert lines[0].startswith("positions 0-49: ")


def test_sides_that_do_not_fit_are_an_error(logits: Any) -> None:
    reference, artefact, _ = logits
    with pytest.raises(CheckpointError, match="one side gave 20 rows of logits for 50 tokens"):
        list(pair_blocks([reference], [artefact[:20]], total=50))
    with pytest.raises(CheckpointError, match="36 logits a token, the reference 37"):
        list(pair_blocks([reference], [artefact[:, 1:]], total=50))


@pytest.mark.parametrize(
    ("total", "trained", "edges"),
    [
        (2048, 8192, [0, 512, 1024, 1536, 2048]),
        (9216, 8192, [0, 2048, 4096, 6144, 8192, 9216]),
        (1024, 256, [0, 64, 128, 192, 256, 448, 640, 832, 1024]),
        (3, 256, [0, 1, 2, 3]),
    ],
)
def test_bands_have_an_edge_at_the_trained_length(
    total: int, trained: int, edges: list[int]
) -> None:
    assert band_edges(total, trained) == edges


@pytest.mark.parametrize(
    ("trained", "context", "tokens", "wanted"),
    [
        (8192, 32768, None, 9216),
        (2048, 4096, None, 3072),
        (8192, 8192, None, 8192),
        (131072, 524288, None, 16384),
        (8, 16, 5, 5),
    ],
)
def test_default_text_reaches_past_the_trained_length(
    trained: int, context: int, tokens: int | None, wanted: int
) -> None:
    assert wanted_tokens(tokens, trained=trained, context=context) == wanted


def test_longrope_runs_on_both_sides_of_its_switch() -> None:
    ids = range(5000)
    assert plan_passes(ids, switch=None, trained=4096) == [Pass("whole text", 5000, 5000)]
    short, long = plan_passes(ids, switch=4096, trained=4096)
    assert (short.tokens, short.context, long.tokens, long.context) == (4096, 4096, 5000, 5000)
    # llama.cpp would round 4000 up to 4096 and take the long factors for a text that is short to
    # PyTorch
    assert plan_passes(ids, switch=4000, trained=4000)[0].context == 3840
    assert [p.tokens for p in plan_passes(ids[:4096], switch=4096, trained=4096)] == [4096]


INV = 20000.0 ** (-np.arange(8) / 8)
ROTARY = Rotary(INV, 1.1)
FREQUENCY_FAULTS: dict[str, tuple[Frequencies, Rotary, str]] = {
    "one pair off by 1e-5": (
        Frequencies(INV * (1 + 1e-5 * (np.arange(8) == 5)), INV, 1.1),
        ROTARY,
        "pair 5 .*1 of 8 pairs differ",
    ),
    "order reversed": (Frequencies(INV[::-1].copy(), INV, 1.1), ROTARY, "8 of 8 pairs differ"),
    "half as many pairs": (
        Frequencies(INV[:4], INV[:4], 1.1),
        ROTARY,
        "4 rotary pairs, the reference has 8",
    ),
    "magnitude": (Frequencies(INV, INV, 1.0), ROTARY, "multiplied by 1, expected 1.1"),
    "not finite": (Frequencies(INV * np.nan, INV, 1.1), ROTARY, "8 of 8 pairs differ"),
    "a still pair that turns": (
        Frequencies(INV, INV, 1.1),
        Rotary(INV * (np.arange(8) < 7), 1.1),
        "pair 7 .*ratio inf",
    ),
    "long table missing": (
        Frequencies(INV, INV, 1.1),
        Rotary(INV, 1.1, INV / 4, 256),
        r"\(long\): pair",
    ),
    "switch elsewhere": (
        Frequencies(INV, INV, 1.1, INV / 4, 512),
        Rotary(INV, 1.1, INV / 4, 256),
        "past 512 tokens, expected 256",
    ),
}


@pytest.mark.parametrize("fault", FREQUENCY_FAULTS)
def test_a_frequency_fault_is_found(fault: str) -> None:
    mine, theirs, text = FREQUENCY_FAULTS[fault]
    report = compare_frequencies({"full_attention": mine}, {"full_attention": theirs})
    assert report.findings
    assert any(re.search(text, line) for line in report.findings)


def test_float32_rounding_and_pinned_tables_are_no_fault() -> None:
    rounded = INV.astype(np.float32).astype(np.float64)
    plain = {"full_attention": Frequencies(INV, INV, 1.1)}
    assert compare_frequencies(plain, {"full_attention": Rotary(rounded, 1.1)}).findings == ()
    pinned = Frequencies(INV, INV, 1.1, INV.copy(), 512)
    assert (
        compare_frequencies({"full_attention": pinned}, {"full_attention": ROTARY}).findings == ()
    )
    still = INV * (np.arange(8) < 7)
    found = Frequencies(np.where(still == 0, 1e-30, still), INV, 1.1)
    assert (
        compare_frequencies(
            {"full_attention": found}, {"full_attention": Rotary(still, 1.1)}
        ).findings
        == ()
    )


def test_layer_types_have_to_fit() -> None:
    full, sliding = Rotary(INV, 1.0), Rotary(INV / 2, 1.0)
    both = {"full_attention": full, "sliding_attention": sliding}
    only = {"full_attention": Frequencies(INV, INV, 1.0)}
    assert compare_frequencies(only, both).findings == (
        "sliding_attention: the artefact has no such layers",
    )
    assert compare_frequencies(only, dict.fromkeys(both, full)).findings == ()
    assert (
        compare_frequencies({}, both).findings[0]
        == "the artefact has no rotary frequencies to compare"
    )
    swapped = {
        "full_attention": Frequencies(INV / 2, INV, 1.0),
        "sliding_attention": Frequencies(INV, INV, 1.0),
    }
    assert len(compare_frequencies(swapped, both).findings) == 2


@dataclass(frozen=True)
class Rows:
    """A tensor in memory."""

    values: np.ndarray
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self.values[start:stop]

    def raw_rows(self, start: int, stop: int) -> np.ndarray:
        raise NotImplementedError


MATRIX = Weight(Role.Q, "w", (64, 64))
SHIFTED = Weight(Role.OUTPUT_NORM, "w", (64,), offset=1.0)


def weight_findings(mine: Rows, theirs: Rows, weight: Weight = MATRIX) -> list[str]:
    return compare_weights({"w": mine}, {"w": theirs}, {"w": Place(weight)}, limits=LIMITS).findings


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


def quantize(values: np.ndarray, kind: str) -> np.ndarray:
    """Rows as ggml quantises them, through llama_cpp's own copy of the library."""
    import ctypes

    import llama_cpp
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    folder = Path(llama_cpp.__file__).parent / "lib"
    library = ctypes.CDLL(str(next(folder.glob("*ggml-base.*"))))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    number = int(GGMLQuantizationType[kind])
    out = np.empty((len(values), values.shape[1] // block * size), np.uint8)
    values = np.ascontiguousarray(values, np.float32)
    library.ggml_quantize_init(number)
    assert (
        library.ggml_quantize_chunk(
            number, values.ctypes.data, out.ctypes.data, 0, *values.shape, None
        )
        == out.nbytes
    )
    return out


def test_a_type_without_limits_is_refused() -> None:
    source = np.ones((2, 32), np.float32)
    assert "no measured limits" in weight_findings(Rows(source, "IQ1_S"), Rows(source))[0]
    with pytest.raises(CannotExpress, match="no limits were measured for gguf type 'IQ1_S'"):
        logit_gates("IQ1_S", activation="silu")


def test_every_file_type_that_is_written_has_limits() -> None:
    for name in FILE_TYPES:
        assert logit_gates(name, activation="silu").nmse > 0
    assert {row.base for row in FILE_TYPES.values() if row.quantised} <= set(GGUF.block_limits)


def test_exact_types_get_room_with_position_and_gelu_a_floor() -> None:
    plain = logit_gates("F32", activation="silu")
    assert plain.at(4096) == plain
    assert plain.at(16384).nmse == pytest.approx(16 * plain.nmse)
    assert plain.at(16384).loss == pytest.approx(4 * plain.loss)
    assert plain.at(16384).top1 == plain.top1
    assert logit_gates("Q8_0", activation="silu").at(16384) == logit_gates(
        "Q8_0", activation="silu"
    )
    assert logit_gates("F32", activation="gelu_pytorch_tanh").nmse == 1e-5
    assert (
        logit_gates("Q8_0", activation="gelu").nmse == logit_gates("Q8_0", activation="silu").nmse
    )


def test_what_is_told_of_quantisation_fails_only_without_numbers(logits: Any) -> None:
    reference, artefact, ids = logits
    limits = Gates(1e-9, 1e-9, 1.0, 1e-9)
    for factor, status in ((1.0, OK), (math.nan, FAIL)):
        with np.errstate(invalid="ignore"):
            moved = artefact * np.float32(factor)
            ((bands, whole),) = compare_logits([[reference]], [moved], ids, trained=TRAINED)
        told = Measured(Pass("whole text", 50, 50), tuple(bands), whole, limits, judged=False)
        (rung,) = loss_rungs([told])
        assert rung.status == status
    assert loss_rungs([replace(told, judged=True)]) == []


def test_json_of_a_broken_run_is_json(logits: Any) -> None:
    reference, _, ids = logits
    with np.errstate(invalid="ignore"):
        ((bands, whole),) = compare_logits(
            [[reference]], [reference * np.float32(np.nan)], ids, trained=TRAINED
        )
    measured = Measured(Pass("whole text", TOTAL, TOTAL), tuple(bands), whole, Gates(1, 1, 0, 1))
    report = Report(
        "f",
        "gguf",
        "F32",
        "s",
        "llama",
        "linear",
        32,
        64,
        (Rung("logits", FAIL, "x", ("y",)),),
        (measured,),
    )
    values = json.loads(json.dumps(to_json(report), allow_nan=False))
    assert values["measured"][0]["whole"]["nmse"] == "nan"
    assert values["verdict"] == "FAIL: logits"
    assert math.isfinite(values["measured"][0]["whole"]["loss_reference"])


def test_a_report_without_logits_is_no_pass() -> None:
    report = Report(
        "f", "gguf", "F32", "s", "llama", "linear", 32, 64, (Rung("structure", OK, "x"),)
    )
    assert not report.ok
    assert report.verdict == "FAIL: logits did not run"
