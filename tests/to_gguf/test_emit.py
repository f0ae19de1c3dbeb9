"""Writing: splits, GGUF sources, re-homing, atomic output. Files are read back by gguf-py and run
by llama.cpp.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf.run import logits
from ropeconv.errors import CannotExpress, OutputError
from ropeconv.extend import ScalingRequest
from ropeconv.target import Emitted
from tests.checkpoints import save_checkpoint
from tests.families import random_ids
from tests.to_gguf import converting
from tests.to_gguf.converting import PI

L = 256


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("source") / "model", "llama", context=L)


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(
        tmp_path_factory.mktemp("source") / "model", "qwen2", context=L, tie_word_embeddings=True
    )


def convert(
    source: Path, out: Path, request: ScalingRequest | None = PI, **options: Any
) -> Emitted:
    return converting.convert(source, out, request, **options).emitted


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(keys, tensors as (type, bytes)) by gguf-py's reader, all splits together."""
    from gguf import GGUFReader

    keys: dict[str, Any] = {}
    tensors: dict[str, Any] = {}
    for part in (
        sorted(path.parent.glob(f"{path.name.split('-0000')[0]}*.gguf"))
        if "-0000" in path.name
        else [path]
    ):
        reader = GGUFReader(part)
        for name, field in reader.fields.items():
            keys.setdefault(name, field.contents())
        for tensor in reader.tensors:
            tensors[tensor.name] = (tensor.tensor_type.name, np.asarray(tensor.data).tobytes())
    return keys, tensors


def run(path: Path, count: int = 300) -> np.ndarray:
    return np.concatenate(list(logits(path, random_ids(count), 4 * L)))


def test_gguf_py_reads_what_was_asked_for(llama: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    emitted = convert(llama, tmp_path / "out.gguf", type="F16")
    keys, tensors = read(emitted.files[0])
    assert (keys["llama.context_length"], keys["llama.rope.scaling.original_context_length"]) == (
        4 * L,
        L,
    )
    assert (keys["llama.rope.scaling.type"], keys["llama.rope.scaling.factor"]) == ("linear", 4.0)
    assert (keys["general.type"], keys["general.file_type"]) == ("model", 1)
    assert emitted.files[0].stat().st_size == emitted.size
    weights = load_file(llama / "model.safetensors")
    down = weights["model.layers.1.mlp.down_proj.weight"].to(torch.float16).numpy()
    assert tensors["blk.1.ffn_down.weight"] == ("F16", down.tobytes())
    assert len(tensors) == len(weights)
    assert keys["general.size_label"] == f"{sum(w.numel() for w in weights.values()) / 1000:.0f}K"


def test_a_split_model_runs_like_a_whole_one(llama: Path, tmp_path: Path) -> None:
    whole = convert(llama, tmp_path / "whole.gguf", type="F32").files[0]
    parts = convert(llama, tmp_path / "parts.gguf", type="F32", split=200_000).files
    assert [p.name for p in parts] == [
        f"parts-{n:05d}-of-{len(parts):05d}.gguf" for n in range(1, len(parts) + 1)
    ]
    assert len(parts) == 3
    assert read(parts[0])[1] == read(whole)[1]
    assert np.array_equal(run(parts[0]), run(whole))


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K_M"])
def test_threads_and_runs_give_the_same_bytes(llama: Path, tmp_path: Path, kind: str) -> None:
    one = convert(llama, tmp_path / "a.gguf", type=kind, threads=1).files[0].read_bytes()
    two = (
        convert(llama, tmp_path / "a.gguf", type=kind, threads=4, force=True).files[0].read_bytes()
    )
    assert one == two


def test_a_gguf_source_keeps_every_weight_and_key(llama: Path, tmp_path: Path) -> None:
    plain = convert(llama, tmp_path / "plain.gguf", None, type="Q4_1").files[0]
    scaled = convert(plain, tmp_path / "scaled.gguf", PI).files[0]
    before, after = read(plain), read(scaled)
    assert after[1] == before[1]
    changed = {key for key in before[0] | after[0] if before[0].get(key) != after[0].get(key)}
    rotary = {"llama.context_length", "llama.rope.scaling.original_context_length"}
    rotary |= {"llama.rope.scaling.type", "llama.rope.scaling.factor"}
    assert changed - {"GGUF.kv_count"} == rotary | {"ropeconv.provenance"}
    direct = convert(llama, tmp_path / "direct.gguf", PI, type="Q4_1").files[0]
    assert np.array_equal(run(scaled), run(direct))


def test_a_gguf_source_takes_tables_too(llama: Path, tmp_path: Path) -> None:
    yarn = ScalingRequest(kind="yarn", factor=4, parameters={"beta_fast": 8.0, "beta_slow": 2.0})
    plain = convert(llama, tmp_path / "plain.gguf", None, type="F32").files[0]
    scaled = convert(plain, tmp_path / "scaled.gguf", yarn)
    assert scaled.carried.how == "tables"
    direct = convert(llama, tmp_path / "direct.gguf", yarn, type="F32").files[0]
    assert read(scaled.files[0])[1] == read(direct)[1]


def test_a_qwen2_gguf_is_rehomed_with_its_blocks_moved_not_requantised(
    qwen2: Path, tmp_path: Path
) -> None:
    llama3 = ScalingRequest(
        kind="llama3", factor=4, parameters={"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    )
    plain = convert(qwen2, tmp_path / "plain.gguf", None, type="Q8_0").files[0]
    scaled = convert(plain, tmp_path / "scaled.gguf", llama3)
    assert scaled.details["architecture"] == "llama"
    direct = convert(qwen2, tmp_path / "direct.gguf", llama3, type="Q8_0").files[0]
    keys, tensors = read(scaled.files[0])
    assert tensors == read(direct)[1]
    assert not [key for key in keys if key.startswith("qwen2.")]
    assert np.array_equal(run(scaled.files[0]), run(direct))


def test_bake_is_obeyed_or_refused(llama: Path, qwen2: Path, tmp_path: Path) -> None:
    meta = convert(llama, tmp_path / "m.gguf", type="F32", bake="metadata")
    tables = convert(llama, tmp_path / "t.gguf", type="F32", bake="tables")
    assert (meta.carried.how, tables.carried.how) == ("metadata", "tables")
    assert tables.details["tables"] == ["rope_freqs.weight"]
    assert np.allclose(run(meta.files[0]), run(tables.files[0]), atol=1e-4)
    llama3 = ScalingRequest(
        kind="llama3", factor=4, parameters={"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    )
    with pytest.raises(CannotExpress, match="cannot carry llama3 scaling exactly as metadata"):
        convert(qwen2, tmp_path / "x.gguf", llama3, bake="metadata")


def test_a_quantised_source_is_not_quantised_again(llama: Path, tmp_path: Path) -> None:
    plain = convert(llama, tmp_path / "plain.gguf", None, type="Q4_1").files[0]
    with pytest.raises(CannotExpress, match=r"quantised already \(.*leave --type out"):
        convert(plain, tmp_path / "again.gguf", PI, type="Q8_0")


def test_an_existing_output_stays_unless_forced(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists; pass --force"):
        convert(llama, out)
    assert out.read_bytes() == b"mine"
    convert(llama, out, force=True)
    assert out.read_bytes()[:4] == b"GGUF"


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (KeyboardInterrupt(), ""),
    ],
)
def test_a_failure_in_the_middle_leaves_the_old_output_and_no_debris(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, text: str
) -> None:
    out, calls = tmp_path / "out.gguf", 0
    out.write_bytes(b"mine")
    real = os.pwrite

    def pwrite(*arguments: Any) -> int:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise failure
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises((OutputError, KeyboardInterrupt)) as raised:
        convert(llama, out, force=True)
    assert text in str(raised.value)
    assert out.read_bytes() == b"mine"
    assert [p.name for p in tmp_path.iterdir()] == ["out.gguf"]


def test_what_a_killed_run_left_is_cleaned_by_the_next(llama: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.gguf.part").write_bytes(b"half" * 1000)
    out = convert(llama, tmp_path / "out.gguf").files[0]
    assert read(out)[0]["general.architecture"] == "llama"
    assert [p.name for p in tmp_path.iterdir()] == ["out.gguf"]


def test_two_writers_of_one_name_are_kept_apart(llama: Path, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / ".out.gguf.part").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another process is writing it"):
            convert(llama, tmp_path / "out.gguf")
    assert (tmp_path / ".out.gguf.part").exists()  # it is the other's


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (
            float("nan"),
            "F32",
            r"tensor model\.layers\.1\.mlp\.down_proj\.weight, row 3, column 5: value nan is "
            r"not finite",
        ),
        (float("inf"), "Q8_0", "value inf is not finite"),
        (1e6, "F16", "value 1e\\+06 is past the range of F16; take BF16 or F32"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(
    llama: Path, tmp_path: Path, value: float, kind: str, text: str
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    from ropeconv.errors import RopeconvError

    source = shutil.copytree(llama, tmp_path / "source")
    weights = load_file(source / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][3, 5] = value
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RopeconvError, match=text):
        convert(source, tmp_path / "out.gguf", type=kind)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("kind", "value"),
    [("F16", 1e-9), ("Q8_0", 1e-9), ("Q5_0", 1e-9), ("Q4_0", 1e-9), ("Q4_1", 1e-9)],
)
def test_weights_that_vanish_are_refused(
    llama: Path, tmp_path: Path, kind: str, value: float, sign: int
) -> None:
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    source = shutil.copytree(llama, tmp_path / "source")
    weights = load_file(source / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    weights[name] = torch.full_like(weights[name], sign * value)
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CannotExpress, match=rf"{name}.*too small for {kind}; take BF16 or F32"):
        convert(source, tmp_path / "out.gguf", type=kind)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]
    stored = read(convert(source, tmp_path / "out.gguf", type="BF16").files[0])[1][
        "blk.1.ffn_down.weight"
    ]
    assert stored == ("BF16", weights[name].to(torch.bfloat16).view(torch.uint8).numpy().tobytes())
    small = {**weights, name: torch.full_like(weights[name], sign * 1e-5)}
    save_file(small, source / "model.safetensors", metadata={"format": "pt"})
    convert(source, tmp_path / "small.gguf", type=kind)
