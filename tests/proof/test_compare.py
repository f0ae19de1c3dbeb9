"""The arithmetic of a comparison of logits against torch's own functions, and its limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ropeconv.errors import CheckpointError
from ropeconv.gates import Gates
from ropeconv.proof.compare import Band, band_edges, compare_logits
from ropeconv.proof.rungs import gate_findings

VOCAB, TOTAL, TRAINED = 37, 50, 32


def compare(
    reference: Sequence[np.ndarray], artefact: Sequence[np.ndarray], ids: Sequence[int]
) -> list[tuple[list[Band], Band]]:
    return compare_logits({"A": reference, "B": artefact}, [("A", "B")], ids, trained=TRAINED)


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
    ((bands, whole),) = compare(cut(reference, 7, 20), cut(artefact, 13), ids)
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
    ((_, whole),) = compare([reference], [reference.copy()], ids)
    assert (whole.nmse, whole.kl, whole.max_abs, whole.top1, whole.loss_difference) == (
        0,
        0,
        0,
        1,
        0,
    )
    moved = reference.copy()
    moved[41, 5] += 0.5
    ((bands, whole),) = compare([reference], [moved], ids)
    assert (whole.nmse_at, whole.max_abs_at, whole.kl_at) == (41, 41, 41)
    assert [band.nmse > 0 for band in bands] == [band.start <= 41 < band.stop for band in bands]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_keep_no_limit(value: float, logits: Any) -> None:
    reference, _, ids = logits
    broken = reference.copy()
    broken[3, 3] = value
    with np.errstate(invalid="ignore"):
        ((bands, _),) = compare([reference], [broken], ids)
    assert bands[0].nmse_at == 3
    found = gate_findings(bands[0], Gates(1.0, 1.0, 0.0, 10.0))
    assert len(found) >= 2
    assert gate_findings(bands[-1], Gates(1.0, 1.0, 0.0, 10.0)) == []


def test_each_limit_can_fail_alone(logits: Any) -> None:
    reference, artefact, ids = logits
    ((_, band),) = compare([reference], [artefact], ids)
    wide = Gates(nmse=1.0, kl=1.0, top1=0.0, loss=10.0)
    assert gate_findings(band, wide) == []
    for field, value in (
        ("nmse", band.nmse * 0.8),
        ("kl", band.kl * 0.8),
        ("top1", 1.0),
        ("loss", 0.0),
    ):
        lines = gate_findings(band, replace(wide, **{field: value}))
        assert len(lines) == 1
        assert lines[0].startswith("positions 0-49: ")


def test_sides_that_do_not_fit_are_an_error(logits: Any) -> None:
    reference, artefact, ids = logits
    for broken, text in (
        (artefact[:20], "B gave 20 rows of logits for 50 tokens"),
        (artefact[:, 1:], "B has 36 logits a token, A has 37"),
    ):
        with pytest.raises(CheckpointError, match=text):
            compare([reference], [broken], ids)


def test_every_side_runs_once_for_all_its_pairs(logits: Any) -> None:
    reference, artefact, ids = logits
    third = artefact + np.float32(0.5) * reference
    made: list[str] = []

    def side(name: str, *blocks: np.ndarray) -> Iterator[np.ndarray]:
        for block in blocks:
            made.append(name)
            yield block

    pairs = [("A", "B"), ("A", "C"), ("B", "C")]
    sides = {"A": side("A", reference), "B": side("B", artefact), "C": side("C", third)}
    found = compare_logits(sides, pairs, ids, trained=TRAINED)
    assert sorted(made) == ["A", "B", "C"]
    alone = {"A": reference, "B": artefact, "C": third}
    for (one, other), both in zip(pairs, found, strict=True):
        ((bands, whole),) = compare([alone[one]], [alone[other]], ids)
        assert both == (bands, whole)


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


def test_a_few_near_ties_are_no_disagreement_in_a_short_band(logits: Any) -> None:
    reference, artefact, ids = logits
    ((bands, _),) = compare([reference], [artefact], ids)
    short = replace(bands[0], start=0, stop=16, top1=13 / 16)
    wide = Gates(nmse=1.0, kl=1.0, top1=0.9, loss=10.0)
    assert gate_findings(short, wide) == []
    assert len(gate_findings(replace(short, top1=11 / 16), wide)) == 1
    assert len(gate_findings(replace(short, stop=1600), wide)) == 1
