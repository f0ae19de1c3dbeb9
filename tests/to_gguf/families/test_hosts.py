"""Models in architectures that are not their own: exact in llama.cpp, proven by verify, refused
without being asked for, and seen where a constant of the host is wrong.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf import plan
from converters.to_gguf.archs import architectures
from converters.to_gguf.run import logits
from ropeconv.api import convert as convert_source
from ropeconv.api import verify
from ropeconv.arch.blocks.attention import Pairing
from ropeconv.errors import CannotExpress, CheckpointError
from tests.checkpoints import save_checkpoint
from tests.command_line import refused
from tests.families import model_logits, nmse, random_ids, reference
from tests.methods import FACTOR, L
from tests.to_gguf import converting
from tests.to_gguf.converting import PI, requested
from tests.to_gguf.gguf_edits import edit

WINDOW: dict[str, Any] = {"sliding_window": 64}
HALF_WINDOWED = {
    **WINDOW,
    "use_sliding_window": True,
    "layer_types": ["full_attention", "sliding_attention"],
}
PATTERN = {"no_rope_layers": [0, 1, 0, 0]}
DENSE_LAYER = {"norm_topk_prob": False, "mlp_only_layers": [1]}
# family, config, method -> the host
EXACT: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "qwen3, llama3": ("qwen3", {}, "llama3", "step35"),
    "qwen3, tied, longrope": ("qwen3", {"tie_word_embeddings": True}, "longrope", "step35"),
    "qwen3_moe, yarn betas": ("qwen3_moe", {}, "yarn betas", "step35"),
    "qwen3_moe, a dense layer": ("qwen3_moe", DENSE_LAYER, "llama3", "step35"),
    "dots1, grouped, llama3": ("dots1", {"num_key_value_heads": 2}, "llama3", "step35"),
    "glm4_moe, yarn": ("glm4_moe", {"use_qk_norm": False}, "yarn betas", "step35"),
    "solar_open, llama3": ("solar_open", {}, "llama3", "step35"),
    "hy_v3, longrope": ("hy_v3", {}, "longrope", "step35"),
    "glm, yarn betas": ("glm", {}, "yarn betas", "step35"),
    "mistral, window": ("mistral", WINDOW, "none", "granite_swa"),
    "qwen2, windows, llama3": ("qwen2", HALF_WINDOWED, "llama3", "granite_swa"),
    "phi3, window": ("phi3", WINDOW, "none", "granite_swa"),
    "cwm, llama3": ("cwm", {}, "llama3", "granite_swa"),
    "ministral, yarn": ("ministral", {}, "yarn", "granite_swa"),
    "smollm3, longrope": ("smollm3", {}, "longrope", "granite_swa"),
    "smollm3, another pattern": ("smollm3", PATTERN, "none", "granite_swa"),
}
PROVEN = (
    "dots1, grouped, llama3",
    "hy_v3, longrope",
    "qwen3, tied, longrope",
    "qwen3_moe, a dense layer",
    "smollm3, longrope",
    "cwm, llama3",
)


def save(folder: Path, case: str) -> Path:
    family, config, _, _ = EXACT[case]
    return save_checkpoint(folder, family, context=L, **config)


def convert(source: Path, case: str, out: Path, **options: Any) -> Path:
    method = EXACT[case][2]
    done = converting.convert(source, out, requested(method), host="any", **options)
    assert done.emitted.details["architecture"] == EXACT[case][3]
    return done.files[0]


def run_file(path: Path, ids: list[int]) -> np.ndarray:
    return np.concatenate(list(logits(path, ids, len(ids))))


@pytest.mark.llama
@pytest.mark.parametrize("case", EXACT)
def test_a_hosted_model_is_exact_and_comes_back(case: str, tmp_path: Path) -> None:
    family, _, method, _ = EXACT[case]
    source = save(tmp_path / "model", case)
    out = convert(source, case, tmp_path / "out.gguf", type="F32")
    ids = random_ids(L if method == "none" else L * FACTOR)
    got, wanted = run_file(out, ids), model_logits(reference(source, family, method), ids)
    assert nmse(got, wanted) <= 1e-10
    again = convert_source(out, "gguf", tmp_path / "again.gguf", host="any")
    assert again.model.arch.name == family
    assert np.array_equal(run_file(again.files[0], ids), got)
    assert_comes_back(source, out, tmp_path / "folder")
    if case in PROVEN:
        assert verify(out, tokens=2 * L).ok
        assert verify(again.files[0], tokens=64).ok


def assert_comes_back(source: Path, out: Path, folder: Path) -> None:
    """The file as safetensors: the source's tensors, bit for bit."""
    from safetensors.numpy import load_file

    convert_source(out, "safetensors", folder)
    (file,) = folder.glob("*.safetensors")
    back, ours = load_file(file), load_file(source / "model.safetensors")
    assert back.keys() == ours.keys()
    assert all(np.array_equal(back[name], ours[name]) for name in ours)


REFUSED = {
    "qwen3, llama3": r"qwen3 cannot carry llama3.*; or --host step35 writes it as step35 with one "
    r"declared layer more, which computes the same: llama\.cpp must know that name, and adapters",
    "mistral, window": r"llama ignores the sliding window of 64.*; or --host granite_swa writes it",
    "smollm3, another pattern": r"rotates every layer but each 4th, and in this model layer 0 .*; "
    "or --host granite_swa writes it as granite_swa with",
    "cwm, llama3": r"no architecture of its own for cwm; --host granite_swa writes it as",
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_host_must_be_asked_for(case: str, tmp_path: Path) -> None:
    source = save(tmp_path / "model", case)
    with pytest.raises(CannotExpress, match=REFUSED[case]) as refusal:
        converting.convert(source, tmp_path / "out.gguf", requested(EXACT[case][2]))
    assert "\n" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hosted by granite_swa, every other layer with a window."""
    root = tmp_path_factory.mktemp("windowed")
    source = save_checkpoint(root / "model", "ministral", context=L)
    return converting.convert(source, root / "out.gguf", PI, type="F32", host="any").files[0]


def as_halves(rows: np.ndarray) -> np.ndarray:
    """Rows (2i, 2i + 1) of 4 heads of 16 back to (i, i + 8)."""
    return np.ascontiguousarray(rows.reshape(4, 8, 2, -1).swapaxes(1, 2).reshape(rows.shape))


FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a window one token off": (
        {"granite_swa.attention.sliding_window": 65},
        {},
        "sliding_window is 65",
    ),
    "rows of q in the order of halves": (
        {},
        {"blk.0.attn_q.weight": as_halves},
        "q_proj",
    ),
}


@pytest.mark.llama
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_host_fails_the_proof(fault: str, windowed: Path) -> None:
    keys, tensors, words = FAULTS[fault]
    bad = edit(windowed, windowed.with_name("bad.gguf"), keys, tensors=tensors)
    report = verify(bad, tokens=2 * L)
    failed = {rung.name for rung in report.rungs if rung.status == "fail"}
    assert "logits" in failed
    assert failed & {"structure", "weights"}
    assert any(words in line for rung in report.rungs for line in rung.findings)


@pytest.mark.llama
def test_sinks_that_weigh_something_are_no_part_of_the_guest(windowed: Path) -> None:
    ids = random_ids(64)
    name = "blk.1.attn_sinks.weight"
    bad = edit(windowed, windowed.with_name("s.gguf"), tensors={name: np.zeros_like})
    assert nmse(run_file(bad, ids), run_file(windowed, ids)) > 1e-4
    with pytest.raises(CheckpointError, match=r"attn_sinks.*not -1e\+30 everywhere, and ministral"):
        verify(bad)


@pytest.mark.llama
def test_a_permutation_left_out_by_the_writer_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader leaves it out too, so that only the runtime shows it."""
    source = save_checkpoint(tmp_path / "model", "ministral", context=L)
    host = architectures()["granite_swa"]
    real = plan.rows

    def unturned(stack: Any, arch: Any, **asked: Any) -> Any:
        return real(stack, replace(arch, pairing=Pairing.HALVES), **asked)

    from converters.to_gguf.read import checkpoint

    monkeypatch.setattr(plan, "rows", unturned)
    monkeypatch.setattr(checkpoint, "rows", unturned)
    out = converting.convert(source, tmp_path / "out.gguf", PI, type="F32", host=host.name).files[0]
    report = verify(out, tokens=64)
    assert {rung.name for rung in report.rungs if rung.status == "fail"} >= {"logits"}


def test_a_shared_expert_that_says_something_is_no_part_of_the_guest(tmp_path: Path) -> None:
    source = save(tmp_path / "model", "qwen3_moe, yarn betas")
    out = convert(source, "qwen3_moe, yarn betas", tmp_path / "out.gguf", type="F32")
    name = "blk.0.ffn_up_shexp.weight"
    bad = edit(out, tmp_path / "bad.gguf", tensors={name: lambda rows: rows + 1})
    with pytest.raises(CheckpointError, match=r"ffn_up_shexp.*not 0 everywhere, and qwen3_moe"):
        converting.read_back(bad)


def test_a_file_of_a_host_that_does_not_say_whose_it_is(tmp_path: Path) -> None:
    source = save(tmp_path / "model", "qwen3, llama3")
    out = convert(source, "qwen3, llama3", tmp_path / "out.gguf", type="F32")
    bare = edit(out, tmp_path / "bare.gguf", {"ropeconv.provenance": None})
    with pytest.raises(CheckpointError, match="is step35, in which ropeconv knows other families'"):
        converting.read_back(bare)


NAMES = {
    "llama": ("qwen2", "none", "llama"),
    "granite_swa": ("qwen2", "linear", "granite_swa"),
    "step35": ("qwen3", "yarn", "step35"),
}


@pytest.mark.llama
@pytest.mark.parametrize("host", NAMES)
def test_a_host_by_name_is_taken_where_another_would_do(host: str, tmp_path: Path) -> None:
    family, method, arch = NAMES[host]
    source = save_checkpoint(tmp_path / "model", family, context=L)
    done = converting.convert(source, tmp_path / "o.gguf", requested(method), type="F32", host=host)
    assert done.emitted.details["architecture"] == arch
    assert f"as architecture {arch}" in done.emitted.carried.why
    ids = random_ids(L)
    wanted = model_logits(reference(source, family, method), ids)
    assert nmse(run_file(done.files[0], ids), wanted) <= 1e-10


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("llama", "--host llama: does not run qwen3; qwen3, step35 can"),
        ("lama", "no GGUF architecture 'lama'; near: llama"),
    ],
)
def test_a_host_that_does_not_run_the_family_is_refused(
    host: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_checkpoint(tmp_path / "model", "qwen3", context=L)
    out = str(tmp_path / "out.gguf")
    assert text in refused(["gguf", str(source), "-o", out, "--host", host], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
