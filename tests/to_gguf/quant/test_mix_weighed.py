"""Types and bytes with an importance matrix, and with the user's own types, against llama.cpp's
quantiser given the same, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf.quant import mix, places, tables
from converters.to_gguf.quant.chosen import Chosen, read_chosen
from converters.to_gguf.quant.ggml import quantize_rows
from converters.to_gguf.quant.types import FILE_TYPES, NEEDS_WEIGHTS, PLAIN
from ropeconv.errors import ConfigError
from ropeconv.kit.casts import cast_rows
from tests.to_gguf.quant.mix_cases import (
    LOW,
    Case,
    Named,
    Stored,
    read_stored,
    shapes_of,
    weights_of,
    write_f32,
)
from tests.to_gguf.quant.weighed import made_up, number_of, quantise_weighed

llama_cpp = pytest.importorskip("llama_cpp")
pytestmark = pytest.mark.llama

CASES = (
    Case("llama", 16, kv_heads=2, ff=512),
    Case("llama", 8, tied=True),
    Case("llama", 80, kv_heads=2, only=("attn_v", "ffn_down")),  # "70B"
    Case("llama", 8, cols=96, ff=288),
    Case("falcon", 16, kv_heads=1),
    Case("gptneox", 16, ff=512),
    Case("qwen3moe", 16, experts=4),
    Case("qwen3moe", 16, experts=8, ff=512),
    Case("glm4moe", 16, experts=5, kv_heads=2, dense_first=3),
    Case("deepseek2", 8, experts=4, kv_heads=1),
)
CHANGED = ("IQ4_NL", "IQ4_XS", "Q4_0", "Q5_0")  # another mix with a matrix
OTHERS = ("Q4_K_M", "Q2_K", "Q3_K_L", "Q6_K", "Q4_1", "Q5_1")
GRID = [(case, name) for case in CASES for name in (*LOW, *CHANGED)]
GRID += [(CASES[0], name) for name in OTHERS]

Reference = Callable[[Case, str], tuple[Stored, int]]


@cache
def weighed(case: Case) -> dict[str, np.ndarray]:
    return made_up(shapes_of(case))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    """(case, file type) -> what llama.cpp stores for it with the matrix."""
    folder = tmp_path_factory.mktemp("weighed")

    @cache
    def source(case: Case) -> Path:
        path = folder / f"{CASES.index(case)}.gguf"
        write_f32(case, path)
        return path

    @cache
    def quantised(case: Case, name: str) -> tuple[Stored, int]:
        out = folder / "out.gguf"
        assert quantise_weighed(source(case), out, FILE_TYPES[name].number, weighed(case)) == 0
        stored = read_stored(out)
        out.unlink()
        return stored

    yield quantised
    quantised.cache_clear()


def choose(case: Case, name: str, **options: Any) -> dict[str, str]:
    shapes = list(shapes_of(case).items())
    return mix.choose_types(shapes, FILE_TYPES[name], **case.model, weighed=True, **options)


def encode(rows: np.ndarray, type_name: str, weights: np.ndarray | None) -> bytes:
    if type_name in PLAIN:
        return cast_rows(rows, type_name).tobytes()
    matrices = rows.reshape(-1, *rows.shape[-2:])
    own = [None] * len(matrices) if weights is None else list(weights)
    return b"".join(
        quantize_rows(matrix, type_name, w).tobytes()
        for matrix, w in zip(matrices, own, strict=True)
    )


def unlike(ours: dict[str, str], theirs: Stored) -> dict[str, tuple[str, str]]:
    assert ours.keys() == theirs.keys()
    return {name: (ours[name], theirs[name][0]) for name in ours if ours[name] != theirs[name][0]}


@pytest.mark.parametrize(("case", "name"), GRID, ids=str)
def test_types_and_bytes_are_llama_cpps(case: Case, name: str, reference: Reference) -> None:
    theirs, number = reference(case, name)
    ours, weights = choose(case, name), weights_of(case)
    assert number == FILE_TYPES[name].number
    assert not unlike(ours, theirs)
    by_matrix = weighed(case)
    wrong = [n for n in ours if encode(weights[n], ours[n], by_matrix.get(n)) != theirs[n][1]]
    assert wrong == []


@pytest.mark.parametrize("kind", ["Q4_K", "IQ3_S", "IQ2_XS", "Q4_0"])
def test_another_matrix_makes_other_bytes(kind: str) -> None:
    """Planted faults: the columns' weights turned round, another expert's, none."""
    rows = np.random.default_rng(0).normal(size=(2, 3, 256)).astype(np.float32)
    weights = made_up({"blk.0.w": rows.shape})["blk.0.w"]
    right = encode(rows, kind, weights)
    for wrong in (weights[:, ::-1], weights[::-1], np.ones_like(weights)):
        assert encode(rows, kind, wrong) != right


LINES = [
    (table, role, name)
    for table in ("MIX", "MIX_OF_EIGHT", "MIX_WEIGHED")
    for role, lines in getattr(tables, table).items()
    for name in sorted(lines)
    if name in LOW or table == "MIX_WEIGHED"
]


@pytest.mark.parametrize(("table", "role", "name"), LINES)
def test_every_line_of_the_mix_is_needed(
    table: str, role: str, name: str, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: a line taken out, or one put in where there is none."""
    lines = getattr(tables, table)[role]
    right = lines[name]
    faults = [right[:at] + right[at + 1 :] for at in range(len(right))]
    for fault in faults or [((places.anywhere, "Q6_K"),)]:
        monkeypatch.setitem(lines, name, fault)
        assert any(unlike(choose(case, name), reference(case, name)[0]) for case in CASES)


@pytest.mark.parametrize(
    ("attribute", "fault"),
    [
        ("LOWEST", frozenset()),
        ("OUTPUT", {}),
        ("EXPERTS_ALONE", ""),
        ("BY_LAYER", ("ffn_down",)),
    ],
)
def test_rules_of_the_low_types_are_needed(
    attribute: str, fault: Any, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mix, attribute, fault)
    assert any(unlike(choose(case, name), reference(case, name)[0]) for case, name in GRID)


@pytest.mark.parametrize("wide", [kind for kind in mix.NARROWER if kind.startswith(("IQ", "TQ"))])
def test_every_fallback_is_needed(
    wide: str, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(mix.NARROWER, wide)
    assert any(unlike(choose(case, name), reference(case, name)[0]) for case, name in GRID)


FALCON = CASES[4]


@pytest.mark.parametrize("name", ["IQ2_M", "IQ1_S", "IQ3_XXS", "IQ3_M", "Q4_0"])
def test_falcons_attention_has_its_own_rules(name: str, reference: Reference) -> None:
    """Planted faults: the common lines; none at all."""
    theirs = reference(FALCON, name)[0]
    assert not unlike(choose(FALCON, name), theirs)
    exceptions = FALCON.model["arch"].mix
    common = replace(exceptions, mix={})
    bare = replace(exceptions, mix={"attn_output": {}, "ffn_down": {}})
    shapes = list(shapes_of(FALCON).items())
    wrong = [
        mix.choose_types(
            shapes,
            FILE_TYPES[name],
            **FALCON.model | {"arch": Named("falcon", one)},
            weighed=True,
        )
        for one in (common, bare)
    ]
    seen = [bool(unlike(types, theirs)) for types in wrong]
    assert any(seen) or name == "Q4_0"


UNWEIGHED = ("IQ3_S", "IQ3_M", "TQ1_0", "TQ2_0", "MXFP4_MOE")


@pytest.mark.parametrize("name", UNWEIGHED)
def test_some_are_made_without_a_matrix(name: str, tmp_path: Path) -> None:
    case = CASES[0]
    source, out = tmp_path / "f32.gguf", tmp_path / "out.gguf"
    write_f32(case, source)
    assert quantise_weighed(source, out, FILE_TYPES[name].number, {}) == 0
    theirs, weights = read_stored(out)[0], weights_of(case)
    ours = mix.choose_types(list(shapes_of(case).items()), FILE_TYPES[name], **case.model)
    assert not unlike(ours, theirs)
    assert [n for n in ours if encode(weights[n], ours[n], None) != theirs[n][1]] == []


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[7]], ids=str)
def test_chosen_types_are_llama_cpps(case: Case, tmp_path: Path) -> None:
    """A pattern's tensors are not counted among those of their role; the first one found counts."""
    source, out = tmp_path / "f32.gguf", tmp_path / "out.gguf"
    write_f32(case, source)
    patterns = [
        ("blk\\.[0-2]\\.attn_v", "Q5_1"),
        ("blk\\.2\\.|ffn_up", "Q6_K"),
        ("ffn_gate", "F16"),
    ]
    chosen = read_chosen(
        [f"{p}={kind.lower()}" for p, kind in patterns], output="q5_k", embedding="IQ4_NL"
    )
    status = quantise_weighed(
        source,
        out,
        FILE_TYPES["Q4_K_M"].number,
        weighed(case),
        patterns=[(p, number_of(kind)) for p, kind in patterns],
        output=number_of("Q5_K"),
        embedding=number_of("IQ4_NL"),
    )
    assert status == 0
    theirs = read_stored(out)[0]
    assert not unlike(choose(case, "Q4_K_M", chosen=chosen), theirs)
    assert unlike(choose(case, "Q4_K_M"), theirs)
    for wrong in (
        Chosen(chosen.patterns[::-1], chosen.output, chosen.embedding),
        Chosen(chosen.patterns, None, chosen.embedding),
        Chosen(chosen.patterns, chosen.output, None),
    ):
        same = case.tied and wrong.output is None  # the embedding's own goes before
        assert same or unlike(choose(case, "Q4_K_M", chosen=wrong), theirs)


@pytest.mark.parametrize(
    ("patterns", "says"),
    [
        (["attn_v"], "give PATTERN=TYPE"),
        (["=q8_0"], "give PATTERN=TYPE"),
        (["attn_v=q9_9"], "no ggml type 'Q9_9'"),
        (["attn_(v=q8_0"], "no regular expression"),
        (["attn_w=q8_0"], "no tensor of the file has that in its name"),
        (["attn_v=q8_0", "blk.0.attn_v=q6_k"], "an earlier pattern is found in each"),
    ],
)
def test_what_chooses_nothing_is_refused(patterns: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        choose(CASES[1], "Q4_K_M", chosen=read_chosen(patterns, output=None, embedding=None))


@pytest.mark.parametrize("name", sorted({"Q2_K_S", *NEEDS_WEIGHTS} & FILE_TYPES.keys()))
def test_llama_cpp_too_refuses_what_needs_an_importance_matrix(name: str, tmp_path: Path) -> None:
    write_f32(CASES[1], tmp_path / "f32.gguf")
    number = FILE_TYPES[name].number
    assert quantise_weighed(tmp_path / "f32.gguf", tmp_path / "out.gguf", number, {}) != 0
