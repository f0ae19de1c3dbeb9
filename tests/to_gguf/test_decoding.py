"""A file decoded with its cache, kept as its user keeps it, and its float twin: llama.cpp's logits
against transformers' on the same tiny models.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from converters.to_gguf import run
from converters.to_gguf.read.artefact import open_artefact
from converters.to_gguf.read.as_run import CACHE_TYPES, LAST_STEPS, logits_as_run, text_calls
from converters.to_gguf.read.probes import CALLS, make_probes
from converters.to_gguf.read.tensors import open_tensors, read_metadata
from ropeconv.artefact import Probe, RunSettings
from ropeconv.errors import CheckpointError, ConfigError, OutputError
from tests.families import make_model, model_logits, nmse, random_ids
from tests.gguf_files import Gguf, to_gguf

pytestmark = pytest.mark.llama
L, TOKENS = 256, 24
WIDE = {"hidden_size": 128, "head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
DEFAULT = {"rope_type": "default", "rope_theta": 20000.0}
SHORT, LONG = [1.0 + 0.02 * i for i in range(8)], [1.0 + 0.4 * i for i in range(8)]
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 20000.0,
    "short_factor": SHORT,
    "long_factor": LONG,
    "factor": 2.0,
    "attention_factor": 1.2,
    "original_max_position_embeddings": L,
}
LONGROPE_KEYS = {
    "rope.freq_base": 20000.0,
    "rope.scaling.type": "longrope",
    "rope.scaling.attn_factor": 1.2,
    "rope.scaling.original_context_length": L,
}


class Plain(NamedTuple):
    """A model, and the file that holds it."""

    model: Any
    gguf: Gguf


@cache
def plain() -> Plain:
    """A llama whose heads fill a block of every type of cache."""
    model = make_model("llama", DEFAULT, context=L, **WIDE)
    return Plain(model, to_gguf(model, keys={"rope.freq_base": 20000.0}))


@cache
def switching() -> Plain:
    """A llama that switches tables at L tokens."""
    model = make_model("llama", LONGROPE, context=2 * L)
    tables = {"short": SHORT, "long": LONG}
    tensors = {f"rope_factors_{n}.weight": np.array(t, np.float32) for n, t in tables.items()}
    return Plain(model, to_gguf(model, keys=LONGROPE_KEYS, tables=tensors))


def probe_error(probe: Probe, model: Any) -> float:
    """NMSE of a probe against one pass of transformers over the same positions."""
    import torch

    ids = np.array(random_ids(probe.position_ids.shape[1]))[None]
    with torch.no_grad():
        wanted = model(
            torch.from_numpy(ids), position_ids=torch.from_numpy(probe.position_ids)
        ).logits
    return nmse(probe.run(ids), np.asarray(wanted))


def test_a_text_is_decoded_at_its_end() -> None:
    assert text_calls(16) == [16]
    assert text_calls(1100) == [512, 512, 68, *LAST_STEPS]
    assert all(sum(text_calls(count)) == count for count in range(1, 1600))


def test_every_size_of_call_gives_the_logits_of_one_pass(tmp_path: Path) -> None:
    model, gguf = plain()
    path, ids = gguf.write(tmp_path / "t.gguf"), random_ids(TOKENS)
    blocks = list(run.logits(path, ids, TOKENS, calls=CALLS))
    assert [len(block) for block in blocks] == list(CALLS)
    assert nmse(np.concatenate(blocks), model_logits(model, ids)) < 1e-9
    with pytest.raises(ValueError, match="do not make 24"):
        next(run.logits(path, ids, TOKENS, calls=(16, 7)))


def test_decoding_on_either_side_of_the_trained_length(tmp_path: Path) -> None:
    model, gguf = plain()
    path = gguf.write(tmp_path / "t.gguf")
    found = make_probes(path, trained=L, context=4 * L, switch=None)
    assert [int(probe.position_ids[0, 0]) for probe in found] == [0, L - TOKENS // 2]
    assert all(probe_error(probe, model) < 1e-9 for probe in found)
    # nothing is promised past it
    assert len(make_probes(path, trained=L, context=L, switch=None)) == 1


def test_decoding_on_either_side_of_a_switch(tmp_path: Path) -> None:
    model, gguf = switching()
    path = gguf.write(tmp_path / "t.gguf")
    short, long = make_probes(path, trained=L, context=2 * L, switch=L)
    assert int(short.position_ids.max()) == L - 1
    assert int(long.position_ids.min()) < L <= int(long.position_ids.max())
    assert probe_error(short, model) < 1e-9
    assert probe_error(long, model) < 1e-9


@pytest.mark.parametrize("table", ["short", "long"])
def test_a_wrong_table_shows_on_its_own_side(table: str, tmp_path: Path) -> None:
    model, gguf = switching()
    name = f"rope_factors_{table}.weight"
    wrong = gguf.changed(tensors={name: gguf.tensors[name] * np.float32(1.5)})
    probes = make_probes(wrong.write(tmp_path / "t.gguf"), trained=L, context=2 * L, switch=L)
    errors = dict(zip(("short", "long"), (probe_error(x, model) for x in probes), strict=True))
    assert errors.pop(table) > 1e-3
    assert all(error < 1e-9 for error in errors.values())


def test_what_a_cache_costs(tmp_path: Path) -> None:
    """Every type that is taken runs, and costs what its bits allow."""
    model, gguf = plain()
    path, ids = gguf.write(tmp_path / "t.gguf"), random_ids(L)
    wanted, metadata = model_logits(model, ids), read_metadata(path)
    errors = {}
    for kind in CACHE_TYPES:
        logits = logits_as_run(path, metadata, RunSettings(kind, flash_attn=True))
        errors[kind] = nmse(np.concatenate(list(logits(ids, L))), wanted)
    assert errors["f16"] < 1e-4 < errors["q8_0"] < 1e-2 < errors["q4_0"] < 1
    alone = logits_as_run(path, metadata, RunSettings("f16"))
    assert 1e-9 < nmse(np.concatenate(list(alone(ids, L))), wanted) < 1e-4
    fused = logits_as_run(path, metadata, RunSettings(flash_attn=True))
    assert nmse(np.concatenate(list(fused(ids, L))), wanted) < 1e-4


REFUSED = {
    RunSettings("q3_k"): r"no cache type of llama\.cpp 'q3_k'; near: .*known: bf16, f16, f32",
    RunSettings("q8_0"): "values in blocks under flash attention alone; add --flash-attn",
}


@pytest.mark.parametrize("settings", REFUSED, ids=lambda settings: settings.words)
def test_a_cache_that_llama_cpp_has_not_is_refused(settings: RunSettings, tmp_path: Path) -> None:
    path = plain().gguf.write(tmp_path / "t.gguf")
    with pytest.raises(ConfigError, match=REFUSED[settings]):
        logits_as_run(path, read_metadata(path), settings)


def test_llama_cpp_refuses_those_too(tmp_path: Path) -> None:
    path = plain().gguf.write(tmp_path / "t.gguf")
    with pytest.raises(CheckpointError, match="V cache requires flash_attn to be enabled"):
        next(run.logits(path, [5, 6], L, cache=run.Cache("Q8_0")))
    narrow = switching().gguf.write(tmp_path / "narrow.gguf")
    with pytest.raises(ConfigError, match="blocks of 32 numbers, and heads of this model have 16"):
        logits_as_run(narrow, read_metadata(narrow), RunSettings("q8_0", flash_attn=True))
    with pytest.raises(CheckpointError, match="block size 32 does not divide n_embd_head_k=16"):
        next(run.logits(narrow, [5, 6], L, cache=run.Cache("Q8_0", flash=True)))


def quantised(path: Path) -> Path:
    """The plain file with every matrix but the embedding in Q8_0 blocks, by gguf-py."""
    from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
    from gguf.quants import quantize

    source = plain().gguf.write(path.with_name("float.gguf"))
    reader, writer = GGUFReader(source), GGUFWriter(path, "llama")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            writer.add_key_value(name, field.contents(), field.types[0])
    for tensor in reader.tensors:
        blocks = tensor.name.startswith("blk.") and len(tensor.shape) > 1
        kind = GGMLQuantizationType.Q8_0 if blocks else GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, quantize(tensor.data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def own_weights(path: Path) -> Any:
    """The plain model with what the file's blocks hold."""
    import copy

    import torch

    model = copy.deepcopy(plain().model)
    inner = {"attn_q": 4, "attn_k": 2}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layers" not in name or parameter.ndim == 1:
                continue
            layer, part = name.split(".")[2], name.split(".")[-2]
            stem = {"o_proj": "attn_output"}.get(part) or (
                f"ffn_{part[:-5]}" if ".mlp." in name else f"attn_{part[0]}"
            )
            tensor = open_tensors(path)[f"blk.{layer}.{stem}.weight"]
            rows = np.asarray(tensor.rows(0, tensor.shape[0]), np.float32)
            if stem in inner:  # neighbours become halves
                rows = rows.reshape(inner[stem], -1, 2, rows.shape[1]).swapaxes(1, 2)
            parameter.copy_(torch.from_numpy(rows.reshape(parameter.shape).copy()))
    return model


def test_a_twin_has_the_blocks_numbers_and_float32s_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ids = quantised(tmp_path / "q8.gguf"), random_ids(L)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(work))
    wanted = model_logits(own_weights(path), ids)
    artefact = open_artefact(path)
    assert artefact.twin is not None
    assert nmse(np.concatenate(list(artefact.logits(ids, L))), wanted) > 1e-5
    twin = artefact.twin()
    assert list(work.iterdir()) == []  # nothing is written before it runs
    assert nmse(np.concatenate(list(twin(ids, L))), wanted) < 1e-9
    assert len(list(work.iterdir())) == 1  # made once, whatever number of passes
    assert nmse(np.concatenate(list(twin(ids, L))), wanted) < 1e-9
    assert len(list(work.iterdir())) == 1
    del artefact, twin
    assert list(work.iterdir()) == []
    assert open_artefact(plain().gguf.write(tmp_path / "t.gguf")).twin is None


def test_a_twin_without_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artefact = open_artefact(quantised(tmp_path / "q8.gguf"))
    assert artefact.twin is not None
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match=r"float copy of q8\.gguf takes .* set TMPDIR to"):
        artefact.twin()
    assert [p for p in tmp_path.iterdir() if p.is_dir()] == []
