"""Types and bytes of every file type against llama.cpp's own `llama_model_quantize`, tensor by
tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf.archs import architectures
from converters.to_gguf.quant import mix, places, tables
from converters.to_gguf.quant.exceptions import NO_EXCEPTIONS, Exceptions
from converters.to_gguf.quant.ggml import quantize_rows
from converters.to_gguf.quant.types import FILE_TYPES, PLAIN
from ropeconv.kit.casts import cast_rows
from tests.to_gguf.quant.mix_cases import (
    CASES,
    GRID,
    LOW,
    USUAL,
    Case,
    Named,
    Stored,
    llama_quantize,
    read_stored,
    shapes_of,
    weights_of,
    write_f32,
)

llama_cpp = pytest.importorskip("llama_cpp")

Reference = Callable[[Case, str], tuple[Stored, int]]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    """(case, file type) -> what llama.cpp stores for it."""
    folder = tmp_path_factory.mktemp("mix")

    @cache
    def source(case: Case) -> Path:
        path = folder / f"{CASES.index(case)}.gguf"
        write_f32(case, path)
        return path

    @cache
    def quantised(case: Case, name: str) -> tuple[Stored, int]:
        out = folder / "out.gguf"
        assert llama_quantize(source(case), out, FILE_TYPES[name].number) == 0
        stored = read_stored(out)
        out.unlink()
        return stored

    yield quantised
    quantised.cache_clear()


def choose(case: Case, name: str) -> dict[str, str]:
    return mix.choose_types(list(shapes_of(case).items()), FILE_TYPES[name], **case.model)


def encode(rows: np.ndarray[Any, Any], type_name: str) -> bytes:
    if type_name in PLAIN:
        return cast_rows(rows, type_name).tobytes()
    return quantize_rows(rows.reshape(-1, rows.shape[-1]), type_name).tobytes()


def unlike(ours: dict[str, str], theirs: Stored) -> dict[str, tuple[str, str]]:
    """The tensors whose type differs: name -> ours, theirs."""
    assert ours.keys() == theirs.keys()
    return {name: (ours[name], theirs[name][0]) for name in ours if ours[name] != theirs[name][0]}


@pytest.mark.parametrize(("case", "name"), GRID, ids=str)
@pytest.mark.llama
def test_types_and_bytes_are_llama_cpps(case: Case, name: str, reference: Reference) -> None:
    theirs, number = reference(case, name)
    ours = choose(case, name)
    assert number == FILE_TYPES[name].number
    assert not unlike(ours, theirs)
    weights = weights_of(case)
    assert [n for n in ours if encode(weights[n], ours[n]) != theirs[n][1]] == []


def test_slabs_from_two_threads_are_llama_cpps_bytes(tmp_path: Path) -> None:
    """Rows cut into slabs, two threads at work, joined: the bytes of one llama.cpp pass."""
    case = Case("llama", 1, cols=512, only=("attn_q",), rows=64)
    name, source, out = "blk.0.attn_q.weight", tmp_path / "f32.gguf", tmp_path / "out.gguf"
    write_f32(case, source)
    slabs = [weights_of(case)[name][at : at + 9] for at in range(0, 64, 9)]
    with ThreadPoolExecutor(2) as pool:
        for row in map(FILE_TYPES.__getitem__, USUAL):
            assert llama_quantize(source, out, row.number) == 0
            joined = b"".join(pool.map(encode, slabs, repeat(row.base)))
            assert read_stored(out)[0][name] == (row.base, joined)


LINES = [
    (table, role, name)
    for table in ("MIX", "MIX_OF_EIGHT")
    for role, lines in getattr(tables, table).items()
    for name in lines
    if name not in LOW
]


@pytest.mark.parametrize(("table", "role", "name"), LINES)
def test_every_line_of_the_mix_is_needed(
    table: str, role: str, name: str, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: a role's lines taken out, or its last line alone; llama.cpp disagrees."""
    roles = getattr(tables, table)
    lines = roles[role][name]
    for fault in ((), lines[1:]):
        monkeypatch.setitem(roles[role], name, fault)
        assert any(unlike(choose(case, name), reference(case, name)[0]) for case in CASES)


PLACE_FAULTS: dict[str, places.Where] = {
    "shared_by_4": lambda place: place.queries_per_key >= 5,
    "outer_and_every_third": lambda place: places.outer_and_every_third(
        replace(place, index=place.index + 1)
    ),
    "first": lambda place: place.index < 3,
    "first_part": lambda place: place.index <= place.total // 8,
}
PLACED = [
    (role, name, at)
    for role, table in tables.MIX.items()
    for name, lines in table.items()
    for at, (where, _) in enumerate(lines)
    if where is not places.anywhere and name not in LOW
]


@pytest.mark.parametrize(("role", "name", "at"), PLACED)
def test_every_place_is_needed(
    role: str, name: str, at: int, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: a line that holds one tensor off, or from another head ratio on, is seen."""
    lines = list(tables.MIX[role][name])
    where, type_name = lines[at]
    lines[at] = (PLACE_FAULTS[where.__qualname__.split(".")[0]], type_name)
    monkeypatch.setitem(tables.MIX[role], name, tuple(lines))
    assert any(unlike(choose(case, name), reference(case, name)[0]) for case in CASES)


@pytest.mark.parametrize(
    "wide", [w for w in mix.NARROWER if w[:3] not in ("IQ1", "IQ2", "IQ3", "TQ1", "TQ2")]
)
def test_every_fallback_is_needed(
    wide: str, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(mix.NARROWER, wide)
    assert any(unlike(choose(case, name), reference(case, name)[0]) for case, name in GRID)


@pytest.mark.parametrize(
    ("attribute", "fault"),
    [
        ("SEVENTY_B_RAISES", {"Q3_K": "Q5_K"}),
        ("SEVENTY_B_RAISES", {"Q4_K": "Q5_K"}),
        ("EIGHT", 4),
        ("KEPT", frozenset()),
        ("_llama_order", lambda name: (0, name)),
    ],
)
def test_model_rules_are_needed(
    attribute: str, fault: Any, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mix, attribute, fault)
    if attribute == "KEPT":
        monkeypatch.setitem(mix.ROLES, "ffn_gate_inp", "ffn_gate_inp")
    assert any(unlike(choose(case, name), reference(case, name)[0]) for case, name in GRID)


FALCON = architectures()["falcon"].mix


def without(exceptions: Exceptions, role: str, name: str) -> Exceptions:
    """The exceptions with the common lines for one role and file type."""
    table = exceptions.mix[role] | {name: tables.MIX[role].get(name, ())}
    return replace(exceptions, mix=exceptions.mix | {role: table})


ARCH_FAULTS: dict[str, tuple[str, Exceptions]] = {
    "qwen2 has no 70B": ("qwen2", NO_EXCEPTIONS),
    "llama has no 70B": ("llama", NO_EXCEPTIONS),
    "the 65B too": ("llama", Exceptions(seventy_b_layers=80)),
    "olmo has no 70B": ("olmo", NO_EXCEPTIONS),
    "jais2 has no 70B": ("jais2", NO_EXCEPTIONS),
    "falcon is as others": ("falcon", NO_EXCEPTIONS),
    "falcon's output is as others'": ("falcon", replace(FALCON, output=None)),
    **{
        f"falcon's {role} in {name} is as others'": ("falcon", without(FALCON, role, name))
        for role, table in FALCON.mix.items()
        for name in sorted((table.keys() | tables.MIX[role]) - {*LOW})
        if table.get(name, ()) != tables.MIX[role].get(name, ())
    },
}


@pytest.mark.parametrize("fault", ARCH_FAULTS)
def test_exceptions_of_an_architecture_are_needed(fault: str, reference: Reference) -> None:
    arch, exceptions = ARCH_FAULTS[fault]
    wrong = {"arch": Named(arch, exceptions)}
    cases = [case for case in CASES if case.arch == arch]
    assert any(
        unlike(
            mix.choose_types(list(shapes_of(case).items()), FILE_TYPES[name], **case.model | wrong),
            reference(case, name)[0],
        )
        for case in cases
        for name in USUAL
    )


def test_down_projections_of_experts_are_counted_by_layer(reference: Reference) -> None:
    """Planted fault: counted one after the other, as in a dense model."""
    case = next(case for case in CASES if case.arch == "qwen2moe")
    dense = mix.choose_types(
        list(shapes_of(case).items()), FILE_TYPES["Q4_K_M"], **case.model | {"n_expert": 0}
    )
    assert unlike(dense, reference(case, "Q4_K_M")[0])


def test_a_flipped_bit_is_seen(reference: Reference) -> None:
    case = CASES[0]
    theirs, _ = reference(case, "Q4_K_M")
    name = "blk.1.ffn_up.weight"
    rows = weights_of(case)[name].copy()
    assert encode(rows, "Q4_K") == theirs[name][1]
    rows[1, 37] *= -1
    assert encode(rows, "Q4_K") != theirs[name][1]


def test_order_given_does_not_matter() -> None:
    tensors = list(shapes_of(CASES[2]).items())
    turned = mix.choose_types(tensors[::-1], FILE_TYPES["Q4_K_M"], **CASES[2].model)
    assert turned == choose(CASES[2], "Q4_K_M")
