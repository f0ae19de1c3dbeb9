"""What docs/safety.md says of memory, held by the kernel: a command that takes more private memory
than the limit gets none.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest

from tests.checkpoints import save_checkpoint

LIMIT = 128 << 20  # bytes: an interpreter with NumPy, slabs for two threads
A_TENSOR = 4096  # bytes of names, shapes and places: more than one takes
HIDDEN, WIDE = 256, 1 << 17  # a matrix of 64 MiB as bfloat16, of 128 MiB as float32
LAYERS = 1000

pytestmark = pytest.mark.torch  # transformers makes the config


def with_a_hole(folder: Path, *, hidden: int, wide: int, layers: int) -> Path:
    """A Llama of these sizes in bfloat16 whose weights are a hole in the file: all zero."""
    save_checkpoint(folder, "llama", context=256)
    config = json.loads((folder / "config.json").read_text())
    sizes = {"hidden_size": hidden, "intermediate_size": wide, "num_hidden_layers": layers}
    heads = dict.fromkeys(("num_attention_heads", "num_key_value_heads"), hidden // 16)
    config |= sizes | heads | {"head_dim": 16, "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    square, end, header = (hidden, hidden), 0, {}
    ends = dict.fromkeys(("model.embed_tokens", "lm_head"), (config["vocab_size"], hidden))
    layer: dict[str, tuple[int, ...]] = {
        **{f"self_attn.{name}_proj": square for name in "qkvo"},
        **dict.fromkeys(("mlp.gate_proj", "mlp.up_proj"), (wide, hidden)),
        "mlp.down_proj": (hidden, wide),
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), (hidden,)),
    }
    every: dict[str, tuple[int, ...]] = {**ends, "model.norm": (hidden,)}
    for number in range(layers):
        every |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    for name, shape in every.items():
        place = [end, end := end + 2 * prod(shape)]
        header[f"{name}.weight"] = {"dtype": "BF16", "shape": shape, "data_offsets": place}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return folder


def run_within(limit: int, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """The command on two CPUs with `limit` bytes of memory of its own. before: code run first."""

    def hold() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])

    code = f"{before}\nfrom ropeconv.cli import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        preexec_fn=hold,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide") / "model"
    return with_a_hole(folder, hidden=HIDDEN, wide=WIDE, layers=1)


WRITE = {
    "gguf F16": ("gguf", "--type", "F16"),
    "gguf Q4_K_M": ("gguf", "--type", "Q4_K_M"),
    "safetensors": ("safetensors", "--dtype", "F16"),
    "onnx fp32": ("onnx", "--type", "fp32"),
    "onnx int8": ("onnx", "--type", "int8"),
}


@pytest.mark.parametrize("name", WRITE)
def test_a_matrix_takes_no_memory(name: str, wide: Path, tmp_path: Path) -> None:
    command, *options = WRITE[name]
    out = tmp_path / ("out.gguf" if command == "gguf" else "out")
    done = run_within(LIMIT, command, str(wide), "-o", str(out), "--quiet", *options)
    assert done.returncode == 0, done.stderr


def test_a_matrix_that_is_held_whole_is_seen(wide: Path, tmp_path: Path) -> None:
    whole = (
        "from converters.to_gguf.file import parts\n"
        "parts.cut = lambda shape: [(0, shape[0] if shape else 1)]"
    )
    arguments = ("gguf", str(wide), "-o", str(tmp_path / "out.gguf"), "--quiet")
    done = run_within(LIMIT, *arguments, before=whole)
    assert done.returncode == 2
    assert "the memory is used up" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["inspect", "gguf"])
def test_tensors_take_what_their_names_take(command: str, tmp_path: Path) -> None:
    model = with_a_hole(tmp_path / "many", hidden=64, wide=64, layers=LAYERS)
    out = ["-o", str(tmp_path / "out.gguf"), "--quiet"] if command == "gguf" else []
    done = run_within(LIMIT + 9 * LAYERS * A_TENSOR, command, str(model), *out)
    assert done.returncode == 0, done.stderr
