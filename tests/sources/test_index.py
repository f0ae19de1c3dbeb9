"""Every way weights lie on disk gives the same tensors as transformers loads; what could run code
is refused.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.errors import CheckpointError
from ropeconv.prepare import prepare
from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import add_tokenizer
from tests.families import make_model

ROPE = {"rope_type": "default", "rope_theta": 20000.0}
FORMS = ["one file", "shards", "torch", "torch shards", "torch before 1.6"]


def save(folder: Path, form: str, dtype: str) -> Any:
    """A tiny Llama in one of the forms; returns its state dict."""
    import torch

    model = make_model("llama", ROPE, context=256, vocab_size=384).to(getattr(torch, dtype))
    folder.mkdir()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if form in ("one file", "shards"):
        model.save_pretrained(folder, max_shard_size="100KB" if form == "shards" else "5GB")
    else:
        model.config.save_pretrained(folder)
        save_torch(folder, state, form)
    add_tokenizer(folder)
    return state


def save_torch(folder: Path, state: Any, form: str) -> None:
    import torch

    if form != "torch shards":
        torch.save(
            state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=form == "torch"
        )
        return
    names, weight_map = list(state), {}
    for number in (1, 2):
        name = f"pytorch_model-{number:05d}-of-00002.bin"
        own = {key: state[key] for key in names[number - 1 :: 2]}
        torch.save(own, folder / name)
        weight_map |= dict.fromkeys(own, name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("form", FORMS)
def test_tensors_are_those_that_were_saved(form: str, dtype: str, tmp_path: Path) -> None:
    state = save(tmp_path / "model", form, dtype)
    checkpoint = open_checkpoint(tmp_path / "model")
    assert set(checkpoint.tensors) == set(state)
    for name, wanted in state.items():
        tensor = checkpoint.tensors[name]
        assert tensor.dtype == {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[dtype]
        found = tensor.rows(0, tensor.shape[0]).astype(np.float32)
        assert np.array_equal(found, wanted.float().numpy()), name
        middle = tensor.rows(1, 3).astype(np.float32)
        assert np.array_equal(middle, wanted[1:3].float().numpy()), name


def test_the_fingerprint_tells_checkpoints_apart_and_not_places(tmp_path: Path) -> None:
    save(tmp_path / "a", "one file", "float32")
    save(tmp_path / "b", "one file", "float32")
    first, second = open_checkpoint(tmp_path / "a"), open_checkpoint(tmp_path / "b")
    assert first.fingerprint == second.fingerprint
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    (tmp_path / "b" / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}))
    assert open_checkpoint(tmp_path / "b").fingerprint != first.fingerprint
    data = bytearray((tmp_path / "a" / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "a" / "model.safetensors").write_bytes(data)
    assert open_checkpoint(tmp_path / "a").fingerprint != first.fingerprint


class Bomb:
    """Runs code when it is unpickled by a loader that allows it."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("content", [{"a": Bomb()}, ["no", "dict"], {"a": 1}])
def test_a_pickle_that_is_no_dict_of_tensors_is_refused_and_not_run(
    content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    save(tmp_path / "model", "torch", "float32")
    torch.save(content, tmp_path / "model" / "pytorch_model.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="use safetensors"):
        open_checkpoint(tmp_path / "model")
    assert not (tmp_path / "exploded").exists()


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "model", "torch", "float32")
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Bomb()}))
    with pytest.raises(CheckpointError, match="weights-only"):
        open_checkpoint(tmp_path / "model")


def test_integer_weights_are_refused(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    save(tmp_path / "model", "one file", "float32")
    path = tmp_path / "model" / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.0.mlp.up_proj.weight"] = weights["model.layers.0.mlp.up_proj.weight"].to(
        torch.int8
    )
    save_file(weights, path)
    with pytest.raises(
        CheckpointError, match="stored as I8; ropeconv reads float32, float16 and bfloat16"
    ):
        prepare(tmp_path / "model", None)
