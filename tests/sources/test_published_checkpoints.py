"""Checkpoints as they are published: lengths that do not fit, windows, vouched keys, families that
are not covered. Numbers are held against transformers and llama.cpp.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.errors import ConfigError, RopeConfigError
from ropeconv.extend import ScalingRequest
from ropeconv.prepare import prepare
from tests.checkpoints import save_checkpoint, with_config
from tests.command_line import refused, report, run, start

pytestmark = pytest.mark.torch
L = 128
OLD = {"rope_parameters": None, "rope_theta": 10000.0}
LINEAR = {"rope_scaling": {"type": "linear", "factor": 4.0}}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": L,
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "llama"
    return save_checkpoint(folder, "llama", context=L, tie_word_embeddings=False)


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Mistral 7B v0.1: a window on every layer, shorter than the context."""
    folder = tmp_path_factory.mktemp("published") / "mistral"
    return save_checkpoint(folder, "mistral", context=2 * L, sliding_window=L)


def keys_of(file: Path) -> dict[str, Any]:
    """Metadata as gguf-py reads it."""
    import gguf

    fields = gguf.GGUFReader(file).fields
    return {key: fields[key].contents() for key in fields}


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The folder with `change` made to the dict of its tensors."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


# L and L' of a config -> what the file states of both; None where nothing may be stated
LENGTHS: dict[str, tuple[dict[str, Any], list[str], tuple[int | None, int]]] = {
    "one length, unknown which": ({"max_position_embeddings": L}, [], (None, L)),
    "one length, the trained one": (
        {"max_position_embeddings": L},
        ["--original-context", str(L)],
        (L, 4 * L),
    ),
    "one length, the extended one": (
        {"max_position_embeddings": 4 * L},
        ["--original-context", str(L)],
        (L, 4 * L),
    ),
    "trained twice": (
        {"max_position_embeddings": L, "original_max_position_embeddings": L},
        ["--original-context", str(L)],
        (L, 4 * L),
    ),
    "both": (
        {"max_position_embeddings": 4 * L, "original_max_position_embeddings": L},
        [],
        (L, 4 * L),
    ),
}


@pytest.mark.parametrize("case", LENGTHS)
def test_lengths_are_written_as_far_as_they_are_known(
    case: str, llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys, options, (trained, context) = LENGTHS[case]
    source = with_config(llama, tmp_path / "source", **OLD, **LINEAR, **keys)
    out = tmp_path / "out.gguf"
    _, told = run(["gguf", str(source), *options, "-o", str(out)], capsys)
    written = keys_of(out)
    assert written["llama.context_length"] == context
    assert written.get("llama.rope.scaling.original_context_length") == trained
    assert ("note T10" in told) == (trained is None)
    again = report(["inspect", str(out)], capsys)
    assert "G2" not in [finding["name"] for finding in again["findings"]]


@pytest.mark.llama
def test_a_file_of_one_length_is_proven(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"max_position_embeddings": L}
    source = with_config(llama, tmp_path / "source", **OLD, **LINEAR, **keys)
    out = tmp_path / "out.gguf"
    run(["gguf", str(source), "-o", str(out)], capsys)
    assert report(["verify", str(out)], capsys)["ok"]
    told = refused(["gguf", str(out), "--pi-factor", "8", "--on-existing", "replace"], capsys)
    assert "--original-context" in told


def test_a_scaling_in_anothers_place_makes_no_context_shorter(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Llama 3.1 reaches 16 times its trained context; a factor of 4 counts from that one."""
    keys = {"max_position_embeddings": 16 * L, "rope_scaling": LLAMA3}
    source = str(with_config(llama, tmp_path / "source", **OLD, **keys))
    out = ["--on-existing", "replace", "-o", str(tmp_path / "out.gguf"), "--force"]
    told = refused(["gguf", source, "--pi-factor", "4", *out], capsys)
    assert f"reaches {16 * L} tokens by llama3; linear in its place reaches {4 * L}" in told
    found = report(["gguf", source, "--context", str(4 * L), *out], capsys)
    assert (found["original_context"], found["context"]) == (L, 4 * L)
    found = report(["gguf", source, "--pi-factor", "16", *out], capsys)
    assert found["context"] == 16 * L


@pytest.mark.llama
@pytest.mark.parametrize("family", ["mistral", "phi3"])
def test_a_file_within_the_window_is_exact(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_checkpoint(tmp_path / "tiny", family, context=2 * L, sliding_window=L)
    out = tmp_path / "out.gguf"
    named = ["-o", str(out), "--name", "Tiny"]
    assert f"give --context {L} or less" in refused(["gguf", str(source), *named], capsys)
    found = report(["gguf", str(source), "--context", str(L), *named], capsys)
    assert (found["original_context"], found["context"], found["factor"]) == (L, L, 1.0)
    assert keys_of(out)[f"{'llama' if family == 'mistral' else family}.context_length"] == L
    proof = report(["verify", str(out)], capsys)
    assert proof["ok"]


@pytest.mark.llama
def test_past_the_window_the_same_file_would_be_another_model(
    windowed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fault that the shorter context avoids: the same tensors, run at the full one."""
    from transformers import AutoModelForCausalLM

    from converters.to_gguf.run import logits

    out = tmp_path / "out.gguf"
    run(["gguf", str(windowed), "--context", str(L), "--type", "F32", "-o", str(out)], capsys)
    ids = np.random.default_rng(0).integers(3, 300, 2 * L).tolist()
    found = np.concatenate(list(logits(out, ids, 2 * L)))
    import torch

    model = AutoModelForCausalLM.from_pretrained(windowed, dtype=torch.float32)
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0].numpy()
    apart = ((found - wanted) ** 2).mean(axis=1) / wanted.var()
    assert apart[:L].max() < 1e-6
    assert apart[L + 1 :].mean() > 1e-4


def test_a_length_within_the_trained_one_scales_nothing(llama: Path) -> None:
    found = prepare(llama, ScalingRequest(None, context=L // 2)).main_rope
    assert (found.kind, found.original_context, found.context) == ("default", L // 2, L // 2)
    with pytest.raises(RopeConfigError, match="does not exceed"):
        prepare(llama, ScalingRequest("linear", context=L // 2))


@pytest.mark.llama
def test_a_window_of_a_file_is_not_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """llama.cpp's own converter writes phi3.attention.sliding_window, which its graph ignores."""
    source = save_checkpoint(tmp_path / "phi3", "phi3", context=2 * L)
    whole, file = tmp_path / "whole.gguf", tmp_path / "window.gguf"
    run(["gguf", str(source), "--name", "Tiny", "-o", str(whole)], capsys)
    with_key(whole, file, "phi3.attention.sliding_window", L)
    for target in ("gguf", "onnx", "safetensors"):
        told = refused([target, str(file), "-o", str(tmp_path / "out")], capsys)
        assert told.startswith(f"ropeconv: G16: phi3.attention.sliding_window is {L}")
    mended = tmp_path / "mended.gguf"
    run(["inspect", str(file), "--fix", "-o", str(mended)], capsys)
    assert keys_of(mended)["phi3.context_length"] == L
    wide = tmp_path / "wide.gguf"
    with_key(whole, wide, "phi3.attention.sliding_window", 4 * L)
    report(["gguf", str(wide), "-o", str(tmp_path / "out.gguf")], capsys)


def with_key(source: Path, out: Path, key: str, value: int) -> None:
    """A copy of the file by gguf-py, with one key more."""
    import gguf

    read = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, read.fields["general.architecture"].contents())
    for name, field in read.fields.items():
        own = name.startswith(("GGUF.", "ropeconv.")) or name == "general.architecture"
        if not own:
            inner = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    writer.add_uint32(key, value)
    for tensor in read.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_key_that_was_vouched_for_is_not_written(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(with_config(llama, tmp_path / "source", strange_key=3))
    written, vouch = tmp_path / "written", ["--ignore-config-key", "strange_key"]
    assert not report_of(["inspect", source], capsys, code=1)["sound"]
    assert report(["inspect", source, *vouch], capsys)["vouched"] == ["strange_key"]
    run(["safetensors", source, *vouch, "-o", str(written)], capsys)
    config = json.loads((written / "config.json").read_text())
    assert "strange_key" not in config
    report(["gguf", str(written), "-o", str(tmp_path / "out.gguf")], capsys)
    assert report(["inspect", str(written)], capsys)["sound"]
    # nobody's word in the folder stands for the user's
    (written / "config.json").write_text(json.dumps(config | {"strange_key": 3}))
    origin = json.loads((written / "ropeconv.json").read_text()) | {"vouched": ["strange_key"]}
    (written / "ropeconv.json").write_text(json.dumps(origin))
    told = refused(["gguf", str(written), "-o", str(tmp_path / "two.gguf")], capsys)
    assert "config.json has strange_key" in told


def report_of(
    arguments: list[str], capsys: pytest.CaptureFixture[str], *, code: int
) -> dict[str, Any]:
    out, _ = run([*arguments, "--json"], capsys, code=code)
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_key_inside_the_rotary_dict_can_be_vouched_for(llama: Path, tmp_path: Path) -> None:
    scaling = {"type": "linear", "factor": 4.0, "strange": True}
    lengths = {"max_position_embeddings": 4 * L, "original_max_position_embeddings": L}
    source = with_config(llama, tmp_path / "source", **OLD, **lengths, rope_scaling=scaling)
    with pytest.raises(RopeConfigError, match="strange"):
        prepare(source, None)
    model = prepare(source, None, ignore=["strange", "not there"])
    assert model.checkpoint.vouched == ("strange",)


def test_a_missing_head_says_what_may_be_meant(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers makes a head up for such a folder, and has one where config.json ties it."""
    source = edit(
        with_config(llama, tmp_path / "source"), lambda tensors: tensors.pop("lm_head.weight")
    )
    told = refused(["gguf", str(source), "-o", str(tmp_path / "out.gguf")], capsys)
    assert "tie_word_embeddings to true" in told
    assert "complete" not in told
    tied = with_config(source, tmp_path / "tied", tie_word_embeddings=True)
    report(["gguf", str(tied), "-o", str(tmp_path / "out.gguf")], capsys)


@pytest.mark.parametrize(
    "name", ["model.rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq"]
)
def test_saved_angles_are_passed_over_as_transformers_does(
    name: str, llama: Path, tmp_path: Path
) -> None:
    """Wrong ones change nothing: transformers makes its own of the config."""
    import torch
    from transformers import AutoModelForCausalLM

    source = Path(shutil.copytree(llama, tmp_path / "source"))
    edit(source, lambda tensors: tensors.update({name: torch.full((8,), 7.0)}))
    model = prepare(source, None)
    theirs = AutoModelForCausalLM.from_pretrained(source).model.rotary_emb.inv_freq.numpy()
    assert name not in model.weights
    assert np.allclose(model.main_frequencies.inv_freq, theirs, rtol=1e-6)


def test_a_composed_scaling_is_called_what_the_user_composed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    qwen = save_checkpoint(tmp_path / "qwen", "qwen3", context=L)
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": L}
    keys = {"max_position_embeddings": 4 * L, "rope_scaling": yarn}
    source = with_config(qwen, tmp_path / "source", **OLD, **keys)
    arguments = ["gguf", str(source), "--pi-factor", "2", "--on-existing", "compose"]
    told = refused([*arguments, "-o", str(tmp_path / "out.gguf")], capsys)
    assert "cannot carry yarn composed with linear scaling" in told


@pytest.mark.parametrize(("name", "near"), [("llava", ""), ("bert", ""), ("qwen-2", "near: qwen2")])
def test_near_names_are_misspelt_ones(
    name: str, near: str, llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = with_config(llama, tmp_path / "source", model_type=name, architectures=[name])
    told = refused(["gguf", str(source), "-o", str(tmp_path / "out.gguf")], capsys)
    assert f"no model family '{name}'" in told
    assert ("near:" in told) == bool(near)
    assert near in told


def test_a_hub_id_of_an_uncovered_family_costs_one_small_file(llama: Path, tmp_path: Path) -> None:
    """A cache that holds config.json alone: nothing else is missed."""
    source = with_config(llama, tmp_path / "mamba", model_type="mamba")
    cache = tmp_path / "cache" / "models--someone--mamba"
    snapshot = cache / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    shutil.copyfile(source / "config.json", snapshot / "config.json")
    settings = {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = start(["gguf", "someone/mamba"], env=os.environ | settings)
    _, told = command.communicate(timeout=120)
    assert command.returncode == 2
    assert "no model family 'mamba'" in told


def test_headers_of_many_tensors_take_little_time(llama: Path, tmp_path: Path) -> None:
    source = with_config(llama, tmp_path / "mamba", model_type="mamba")
    (source / "model.safetensors").write_bytes(header_of(90_000))
    start = time.perf_counter()
    with pytest.raises(ConfigError, match="no model family"):
        prepare(source, None)
    assert time.perf_counter() - start < 2.0


def header_of(count: int) -> bytes:
    """A safetensors file of `count` tensors of four bytes."""
    entries = {
        f"model.layers.{n}.weight": {
            "dtype": "F32",
            "shape": [1],
            "data_offsets": [4 * n, 4 * n + 4],
        }
        for n in range(count)
    }
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(4 * count)
