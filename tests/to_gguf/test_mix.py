"""Types and bytes of every file type against llama.cpp's own `llama_model_quantize`, tensor by tensor."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf import mix
from converters.to_gguf.ggml import quantize_rows
from converters.to_gguf.types import FILE_TYPES, NEEDS_IMATRIX, PLAIN
from ropeconv.casts import cast_rows

llama_cpp = pytest.importorskip("llama_cpp")

Shapes = dict[str, tuple[int, ...]]
Stored = dict[str, tuple[str, bytes]]  # name -> ggml type, data

NORMS = ("attn_norm", "ffn_norm")
RULED = ("attn_v", "attn_output", "ffn_down")
SPLIT = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
FUSED = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")
# arch -> matrices, norms, biased matrices of one layer
LAYERS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "llama": (SPLIT, NORMS, ()),
    "qwen2": (SPLIT, NORMS, ("attn_q", "attn_k", "attn_v")),
    "qwen3": (SPLIT, (*NORMS, "attn_q_norm", "attn_k_norm"), ()),
    "gemma3": (SPLIT, (*NORMS, "attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm"), ()),
    "olmo2": (SPLIT, ("attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm"), ()),
    "phi3": (FUSED, NORMS, ()),
    "gptneox": (FUSED, NORMS, FUSED),
}


@dataclass(frozen=True)
class Case:
    """A model of short matrices: llama.cpp's rules look at names, row lengths and head counts only."""

    arch: str
    layers: int
    heads: int = 8
    kv_heads: int = 8
    cols: int = 256
    ff: int = 256
    tied: bool = False
    rope_freqs: bool = False
    rows: int = 2
    only: tuple[str, ...] = ()  # these matrices of a layer and no norms, to keep deep models small

    @property
    def model(self) -> dict[str, Any]:
        return {"arch": self.arch, "n_layer": self.layers, "n_head": self.heads, "n_head_kv": self.kv_heads}


CASES = (
    Case("llama", 3, kv_heads=2, ff=512, rope_freqs=True),
    Case("llama", 8, tied=True),
    Case("llama", 16, kv_heads=1),
    Case("llama", 80, kv_heads=4, only=RULED),  # "70B"
    Case("llama", 80, only=RULED),  # "65B"
    Case("llama", 16, cols=96, ff=288),
    Case("llama", 8, cols=96, ff=512, tied=True),
    Case("llama", 8, cols=288, ff=100, kv_heads=2),
    Case("llama", 8, heads=5, kv_heads=5, cols=100, ff=256),
    Case("qwen2", 80, only=("attn_v", "ffn_down")),
    Case("qwen2", 16, kv_heads=2, cols=512, tied=True),
    Case("qwen3", 16, kv_heads=2, tied=True),
    Case("gemma3", 26, heads=4, kv_heads=1, tied=True, ff=288),
    Case("olmo2", 32),
    Case("phi3", 32, kv_heads=2),
    Case("phi3", 8, cols=96, ff=256),
    Case("gptneox", 16, ff=512),
    Case("gptneox", 24, cols=288),
)
GRID = [(case, name) for case in CASES for name in FILE_TYPES]


def shapes_of(case: Case) -> Shapes:
    """Every tensor of the model, in an order that is not llama.cpp's."""
    matrices, norms, biased = (case.only, (), ()) if case.only else LAYERS[case.arch]
    shapes: Shapes = {"token_embd.weight": (3, case.cols), "output_norm.weight": (case.cols,)}
    if not case.tied:
        shapes["output.weight"] = (3, case.cols)
    if case.rope_freqs:
        shapes["rope_freqs.weight"] = (16,)
    for layer in range(case.layers):
        block: Shapes = {f"{m}.weight": (case.rows, case.ff if m == "ffn_down" else case.cols) for m in matrices}
        block.update({f"{n}.weight": (case.cols,) for n in norms} | {f"{b}.bias": (2,) for b in biased})
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    names = list(shapes)
    random.Random(7).shuffle(names)
    return {name: shapes[name] for name in names}


@cache
def weights_of(case: Case) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(3)
    return {n: (rng.standard_normal(s) * rng.uniform(0.01, 2)).astype(np.float32) for n, s in shapes_of(case).items()}


def write_f32(case: Case, path: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, case.arch)
    writer.add_block_count(case.layers)
    writer.add_context_length(64)
    writer.add_embedding_length(case.cols)
    writer.add_feed_forward_length(case.ff)
    writer.add_head_count(case.heads)
    writer.add_head_count_kv(case.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_layer_norm_eps(1e-5)
    writer.add_parallel_residual(True)
    writer.add_vocab_size(3)
    for name, data in weights_of(case).items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_stored(path: Path) -> tuple[Stored, int]:
    """Every tensor's type and bytes, and `general.file_type`."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    stored = {t.name: (t.tensor_type.name, t.data.tobytes()) for t in reader.tensors}
    return stored, int(reader.fields["general.file_type"].contents())


def llama_quantize(source: Path, out: Path, number: int) -> int:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = number, 1
    return int(llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), params))


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
    return (cast_rows(rows, type_name) if type_name in PLAIN else quantize_rows(rows, type_name)).tobytes()


def unlike(ours: dict[str, str], theirs: Stored) -> dict[str, tuple[str, str]]:
    """The tensors whose type differs: name -> ours, theirs."""
    assert ours.keys() == theirs.keys()
    return {name: (ours[name], theirs[name][0]) for name in ours if ours[name] != theirs[name][0]}


@pytest.mark.parametrize(("case", "name"), GRID, ids=str)
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
        for row in FILE_TYPES.values():
            assert llama_quantize(source, out, row.number) == 0
            joined = b"".join(pool.map(encode, slabs, repeat(row.base)))
            assert read_stored(out)[0][name] == (row.base, joined)


@pytest.mark.parametrize(("role", "name"), [(role, name) for role, table in mix.MIX.items() for name in table])
def test_every_line_of_the_mix_is_needed(role: str, name: str, reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted fault: with a role's lines taken out, or its last line alone, llama.cpp disagrees somewhere."""
    lines = mix.MIX[role][name]
    for fault in ((), lines[1:]):
        monkeypatch.setitem(mix.MIX[role], name, fault)
        assert any(unlike(choose(case, name), reference(case, name)[0]) for case in CASES)


PLACE_FAULTS: dict[str, mix.Where] = {
    "shared_by_4": lambda place: place.queries_per_key >= 5,
    "outer_and_every_third": lambda place: mix.outer_and_every_third(replace(place, index=place.index + 1)),
    "first": lambda place: place.index < 3,
    "first_part": lambda place: place.index <= place.total // 8,
}
PLACED = [
    (role, name, at)
    for role, table in mix.MIX.items()
    for name, lines in table.items()
    for at, (where, _) in enumerate(lines)
    if where is not mix.anywhere
]


@pytest.mark.parametrize(("role", "name", "at"), PLACED)
def test_every_place_is_needed(role: str, name: str, at: int, reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted fault: a line that holds one tensor off, or from another head ratio on, is seen."""
    lines = list(mix.MIX[role][name])
    where, type_name = lines[at]
    lines[at] = (PLACE_FAULTS[where.__qualname__.split(".")[0]], type_name)
    monkeypatch.setitem(mix.MIX[role], name, tuple(lines))
    assert any(unlike(choose(case, name), reference(case, name)[0]) for case in CASES)


@pytest.mark.parametrize("wide", list(mix.NARROWER))
def test_every_fallback_is_needed(wide: str, reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(mix.NARROWER, wide)
    assert any(unlike(choose(case, name), reference(case, name)[0]) for case, name in GRID)


@pytest.mark.parametrize(
    ("attribute", "fault"),
    [
        ("SEVENTY_B_LAYERS", {"llama": 80}),
        ("SEVENTY_B_LAYERS", {"qwen2": 80}),
        ("SEVENTY_B_IF_GROUPED", ()),
        ("SEVENTY_B_RAISES", {"Q3_K": "Q5_K"}),
        ("SEVENTY_B_RAISES", {"Q4_K": "Q5_K"}),
        ("_llama_order", lambda name: (0, name)),
    ],
)
def test_model_rules_are_needed(attribute: str, fault: Any, reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mix, attribute, fault)
    assert any(unlike(choose(case, name), reference(case, name)[0]) for case, name in GRID)


def test_a_flipped_bit_is_seen(reference: Reference) -> None:
    case = CASES[0]
    theirs, _ = reference(case, "Q4_K_M")
    name = "blk.1.ffn_up.weight"
    rows = weights_of(case)[name].copy()
    assert encode(rows, "Q4_K") == theirs[name][1]
    rows[1, 37] *= -1
    assert encode(rows, "Q4_K") != theirs[name][1]


@pytest.mark.parametrize("name", NEEDS_IMATRIX)
def test_llama_cpp_too_refuses_what_needs_an_importance_matrix(name: str, tmp_path: Path) -> None:
    case = Case("llama", 8, kv_heads=2)
    write_f32(case, tmp_path / "f32.gguf")
    number = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}")
    assert llama_quantize(tmp_path / "f32.gguf", tmp_path / "out.gguf", number) != 0


def test_order_given_does_not_matter() -> None:
    tensors = list(shapes_of(CASES[2]).items())
    turned = mix.choose_types(tensors[::-1], FILE_TYPES["Q4_K_M"], **CASES[2].model)
    assert turned == choose(CASES[2], "Q4_K_M")
