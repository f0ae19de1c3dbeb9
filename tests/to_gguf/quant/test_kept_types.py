"""A GGUF file whose scaling changes keeps the bytes of every tensor, in whatever type of ggml's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.api import inspect
from ropeconv.extend import ScalingRequest
from tests.checkpoints import save_checkpoint
from tests.command_line import refused
from tests.to_gguf.converting import PI, convert
from tests.to_gguf.quant.mix_cases import Stored, read_stored
from tests.to_gguf.quant.test_quantised import wide

FLOATS = ("F32", "F16", "BF16")
LLAMA3 = ScalingRequest(
    kind="llama3", factor=4, parameters={"low_freq_factor": 1.0, "high_freq_factor": 4.0}
)


def block_types() -> list[str]:
    """What gguf-py knows of ggml's types of blocks, but those of activations."""
    import gguf

    sizes = gguf.GGML_QUANT_SIZES
    activations = ("Q8_1", "Q8_K")
    return [kind.name for kind in sizes if sizes[kind][0] > 1 and kind.name not in activations]


def recode(source: Path, out: Path, kind: str) -> Stored:
    """The file with random blocks of `kind` for matrices; returns what is stored."""
    import gguf

    number = gguf.GGMLQuantizationType[kind]
    values, size = gguf.GGML_QUANT_SIZES[number]
    rng = np.random.default_rng(5)
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            sub = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], sub)
    for tensor in reader.tensors:
        shape = tensor.data.shape
        if len(shape) < 2:
            writer.add_tensor(tensor.name, tensor.data)
            continue
        blocks = (*shape[:-1], shape[-1] // values * size)
        writer.add_tensor(tensor.name, rng.integers(0, 256, blocks, np.uint8), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read_stored(out)[0]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("plain")
    found = {}
    for family in ("llama", "qwen2", "qwen3_moe"):
        config: dict[str, Any] = wide(family) | {"num_hidden_layers": 2}
        source = save_checkpoint(folder / family, family, context=256, **config)
        found[family] = convert(source, folder / f"{family}.gguf", type="F32").files[0]
    return found


@pytest.mark.parametrize("kind", block_types())
@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_bytes_stay(family: str, kind: str, plain: dict[str, Path], tmp_path: Path) -> None:
    stored = recode(plain[family], tmp_path / "in.gguf", kind)
    assert kind in {one[0] for one in stored.values()}
    done = convert(tmp_path / "in.gguf", tmp_path / "out.gguf", PI)
    assert read_stored(done.files[0])[0] == stored
    assert done.model.main_rope.context == 1024
    assert kind in inspect(done.files[0]).facts["weight_bytes"]


@pytest.mark.parametrize("target", ["gguf", "safetensors", "onnx"])
def test_blocks_that_nobody_reads_are_said_so(
    target: str, plain: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recode(plain["llama"], tmp_path / "in.gguf", "Q1_0")
    out = tmp_path / ("out.gguf" if target == "gguf" else "out")
    kind = ["--type", "F16", "--allow-requantize"] if target == "gguf" else []
    said = refused([target, str(tmp_path / "in.gguf"), *kind, "-o", str(out)], capsys)
    assert "Q1_0" in said
    assert [path.name for path in tmp_path.iterdir()] == ["in.gguf"]


@pytest.mark.parametrize("kind", ["IQ2_XXS", "TQ1_0", "MXFP4", "Q4_K"])
def test_another_architecture_reorders_whole_rows(
    kind: str, plain: dict[str, Path], tmp_path: Path
) -> None:
    """Qwen2 with a table of divisors becomes llama, whose rows stand in another order."""
    stored = recode(plain["qwen2"], tmp_path / "in.gguf", kind)
    done = convert(tmp_path / "in.gguf", tmp_path / "out.gguf", LLAMA3)
    assert done.emitted.details["architecture"] == "llama"
    found = read_stored(done.files[0])[0]
    moved = [name for name in stored if found[name] != stored[name]]
    assert {name.split(".")[2] for name in moved} == {"attn_q", "attn_k"}
    for name in moved:
        if name.endswith("weight"):
            assert rows_of(found[name][1], name) == rows_of(stored[name][1], name)


def rows_of(data: bytes, name: str) -> list[bytes]:
    """A matrix's rows, sorted: as many as its heads have values."""
    count = 256 if "attn_q" in name else 128
    size = len(data) // count
    return sorted(data[at : at + size] for at in range(0, len(data), size))
