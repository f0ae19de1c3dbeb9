"""Headers that claim more than anybody has: refused in one line, in seconds, within 4 GiB of
memory, although sparse files bear the claims out.
"""

from __future__ import annotations

import json
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkpoints import save_checkpoint
from tests.command_line import run

MEMORY = 4 << 30
SECONDS = 20
TERABYTE = 1 << 40
HEAD = b"GGUF" + struct.pack("<I", 3)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("bombs") / "model", "llama", context=256)


@pytest.fixture
def model(plain: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    copy.mkdir()
    for file in plain.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def refused_in_time(*arguments: object) -> str:
    """The one line of a command in a process of its own, under the limits."""
    done = subprocess.run(
        [sys.executable, "-m", "ropeconv.cli", *map(str, arguments)],
        capture_output=True,
        check=False,
        text=True,
        timeout=SECONDS,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY)),
    )
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr[-2000:]
    assert len(lines) == 1, done.stderr[-2000:]
    assert "unexpected" not in lines[0]
    return lines[0]


def text(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def gguf(tensors: int, keys: int, rest: bytes) -> bytes:
    return HEAD + struct.pack("<QQ", tensors, keys) + rest


ARRAY = text(b"tokenizer.ggml.tokens") + struct.pack("<I", 9)
FILES: dict[str, tuple[bytes, str]] = {
    "a key of 2^32 bytes": (gguf(0, 1, text(b"", 1 << 32)), "string of 4294967296 bytes"),
    "a value of 2^36 bytes": (
        gguf(0, 1, text(b"general.name") + struct.pack("<I", 8) + text(b"", 1 << 36)),
        "string of 68719476736 bytes",
    ),
    "an array of 4 G numbers": (
        gguf(0, 1, ARRAY + struct.pack("<IQ", 4, 1 << 32)),
        "array of 4294967296 entries",
    ),
    "an array of 4 G texts": (
        gguf(0, 1, ARRAY + struct.pack("<IQ", 8, 1 << 32)),
        "array of 4294967296 entries",
    ),
    "a token of a megabyte": (
        gguf(0, 1, ARRAY + struct.pack("<IQ", 8, 1) + text(b"x" * (1 << 20))),
        "a string at",
    ),
    "a billion tensors": (gguf(10**9, 0, b""), "1000000000 tensors"),
    "a billion keys": (gguf(0, 10**9, b""), "1000000000 keys"),
    "a tensor of a terabyte a row": (
        gguf(1, 0, text(b"a") + struct.pack("<IQQIQ", 2, 1 << 38, 1, 0, 0)),
        "no general.architecture",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_gguf_header_is_not_believed(tmp_path: Path, name: str) -> None:
    content, reason = FILES[name]
    path = tmp_path / "bomb.gguf"
    with path.open("wb") as file:
        file.write(content)
        file.truncate(2 * TERABYTE)
    assert reason in refused_in_time("safetensors", path, "-o", tmp_path / "out")


def set_config(model: Path, **changes: object) -> None:
    config = json.loads((model / "config.json").read_text()) | changes
    (model / "config.json").write_text(json.dumps(config))


def many_tensors(model: Path) -> None:
    """A million empty tensors."""
    entry = '"{:07}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    header = ("{" + ",".join(map(entry.format, range(10**6))) + "}").encode()
    data = struct.pack("<Q", len(header)) + header
    (model / "model.safetensors").write_bytes(data + b"\0")


def wide_row(model: Path) -> None:
    """One row of a terabyte, which the file has."""
    entry = {"dtype": "F32", "shape": [1, TERABYTE // 4], "data_offsets": [0, TERABYTE]}
    header = json.dumps({"model.embed_tokens.weight": entry}).encode()
    with (model / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + TERABYTE)
    set_config(model, hidden_size=TERABYTE // 4, vocab_size=1)


def long_token(model: Path) -> None:
    said = json.loads((model / "tokenizer.json").read_text())
    said["model"]["vocab"]["x" * (1 << 20)] = 383
    (model / "tokenizer.json").write_text(json.dumps(said))


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a billion layers": (lambda model: set_config(model, num_hidden_layers=10**9), "10000 at most"),
    "a context of 1e15": (
        lambda model: set_config(model, max_position_embeddings=10**15),
        "runtimes count positions up to",
    ),
    "a context of 2^31 - 1": (
        lambda model: set_config(model, max_position_embeddings=2**31 - 1),
        "of 2147483647 positions would take",
    ),
    "a million tensors": (many_tensors, "a header of"),
    "a row of a terabyte": (wide_row, "hidden_size must be"),
    "a token of a megabyte": (long_token, "length <= 8192"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_not_believed(model: Path, tmp_path: Path, name: str) -> None:
    spoil, reason = FOLDERS[name]
    spoil(model)
    out = tmp_path / "out"
    line = refused_in_time("onnx", model, "--bake", "tables", "-o", out)
    assert reason in line
    assert not out.exists()


def test_a_card_whose_aliases_explode_is_not_read(model: Path, tmp_path: Path) -> None:
    levels = ["a0: &a0 [x]"]
    for n in range(1, 10):
        levels.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]")
    (model / "README.md").write_text("\n".join(["---", *levels, "tags: *a9", "---", ""]))
    assert "91 aliases" in refused_in_time("gguf", model, "-o", tmp_path / "out.gguf")


def test_the_sound_model_passes_the_same_command(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["onnx", str(model), "--bake", "tables", "-o", str(tmp_path / "out"), "--quiet"], capsys)
