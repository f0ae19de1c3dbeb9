"""Files that strangers wrote: links out of the folder, things that are no files, bombs, half
characters, and provenance that speaks of more than RoPE.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from ropeconv.errors import CheckpointError, RopeconvError
from ropeconv.kit.door import parse_json, read_file
from ropeconv.provenance import ORIGIN_FILE, read_folder_origin
from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import save_checkpoint
from tests.command_line import refused


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("door") / "model", "llama", context=256)


@pytest.fixture
def model(plain: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    copy = tmp_path / "model"
    copy.mkdir()
    for file in plain.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def read_all(folder: Path) -> list[bytes]:
    return [read() for read in open_checkpoint(folder).files.values()]


@pytest.mark.parametrize("name", ["chat_template.jinja", "config.json", "model.safetensors"])
def test_a_link_out_of_the_folder_is_refused(model: Path, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes((model / name).read_bytes() if (model / name).exists() else b"hidden text")
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(secret)
    with pytest.raises(CheckpointError, match="link to a file outside"):
        read_all(model)


def test_a_link_leaks_into_no_target(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret").write_text("hidden text")
    (model / "chat_template.jinja").symlink_to(tmp_path / "secret")
    for target in ("gguf", "onnx", "safetensors"):
        out = tmp_path / f"out.{target}"
        told = refused([target, str(model), "--pi-factor", "2", "-o", str(out)], capsys)
        assert "link to a file outside" in told
        assert not out.exists()


def test_a_hub_cache_may_link_into_its_own_blobs(model: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in model.iterdir():
        (blobs / file.name).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    opened = open_checkpoint(snapshot)
    assert opened.fingerprint == open_checkpoint(model).fingerprint
    assert all(read() for read in opened.files.values())


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_what_is_no_regular_file_is_not_waited_for(model: Path, name: str) -> None:
    (model / name).unlink(missing_ok=True)
    os.mkfifo(model / name)
    with pytest.raises(CheckpointError, match="no regular file"):
        read_all(model)


def test_a_device_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="no regular file"):
        open_checkpoint(tmp_path)


def test_a_file_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match="1099511627776 bytes"):
        read_file(tmp_path / "config.json", inside=tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "without end"),
        ('{"a": NaN}', "no number"),
        ('{"a": 1e400}', "out of range"),
        ('{"a": -1e400}', "out of range"),
        ('{"a": 1000000000000000000000000000000}', "out of range"),
        (r'{"a": "\ud800"}', "half a character"),
        (r'{"\udc00": 1}', "half a character"),
    ],
)
def test_json_that_readers_take_differently_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_whole_characters_and_long_numbers_pass() -> None:
    value = {"a": "\N{GRINNING FACE}", "b": 2**63, "c": 1.7e308, "d": -1}
    assert parse_json(json.dumps(value)) == value


def test_no_limit_as_transformers_writes_it_passes(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())).save_pretrained(tmp_path)
    settings = parse_json((tmp_path / "tokenizer_config.json").read_bytes())
    assert settings["model_max_length"] == int(1e30)


def test_provenance_speaks_of_rope_alone(tmp_path: Path) -> None:
    origin = {
        "ropeconv": "0.1",
        "source": "../model",
        "fingerprint": "0",
        "family": "llama",
        "config": {"rope_parameters": {"rope_type": "default"}, "rms_norm_eps": 1e-6},
    }
    (tmp_path / ORIGIN_FILE).write_text(json.dumps(origin))
    with pytest.raises(RopeconvError, match="rms_norm_eps, which is no RoPE setting"):
        read_folder_origin(tmp_path)
    origin["config"] = {"rope_parameters": {"rope_type": "default"}}
    (tmp_path / ORIGIN_FILE).write_text(json.dumps(origin))
    assert read_folder_origin(tmp_path) is not None


def test_a_message_stays_on_one_line_of_a_sane_length(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((model / "config.json").read_text())
    config["x\nropeconv: all is well\x1b[2K" + "y" * 1_000_000] = 1
    (model / "config.json").write_text(json.dumps(config))
    told = refused(["gguf", str(model), "--pi-factor", "2", "-o", str(model / "a.gguf")], capsys)
    assert "\x1b" not in told
    assert len(told) < 2000
