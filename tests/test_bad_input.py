"""Wrong input through the command line: one clear line, exit 2, nothing written, the previous
output intact.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ropeconv.cli import main
from tests.checkpoints import save_checkpoint
from tests.command_line import refused, start

L = 256


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("good")
    save_checkpoint(root / "model", "llama", context=L)
    with pytest.raises(SystemExit) as done:
        main(["gguf", str(root / "model"), "-o", str(root / "good.gguf"), "--quiet"])
    assert done.value.code == 0
    return root


@pytest.fixture
def model(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good / "model", tmp_path / "model")


def edit_json(path: Path, **changes: object) -> None:
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, **changes}))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def corrupt_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8:24] = b"\xff" * 16
    path.write_bytes(data)


def huge_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 40) + path.read_bytes()[8:])


def missing_shard(path: Path) -> None:
    index = {
        "weight_map": {
            "model.norm.weight": "model-00001-of-00002.safetensors",
            "lm_head.weight": "model-00002-of-00002.safetensors",
        }
    }
    path.rename(path.with_name("model-00001-of-00002.safetensors"))
    path.with_name("model.safetensors.index.json").write_text(json.dumps(index))


def path_out_of_the_folder(path: Path) -> None:
    path.with_name("model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../../etc/passwd"}})
    )


def bigger_vocabulary(path: Path) -> None:
    tokenizer = json.loads(path.with_name("tokenizer.json").read_text())
    tokenizer["added_tokens"].append(
        {**tokenizer["added_tokens"][0], "id": 384, "content": "<|extra|>"}
    )
    path.with_name("tokenizer.json").write_text(json.dumps(tokenizer))


def add_tensor(path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    save_file(
        load_file(path) | {"model.layers.0.self_attn.sinks": torch.zeros(4)},
        path,
        metadata={"format": "pt"},
    )


def drop_tensor(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(path)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})


def untie_by_hand(path: Path) -> None:
    edit_json(path.with_name("config.json"), tie_word_embeddings=True)


def single_file_beside_shards(path: Path) -> None:
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}
    path.with_name("model.safetensors.index.json").write_text(json.dumps(index))


SOURCES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (
        lambda p: p.with_name("config.json").unlink(),
        "not a checkpoint folder (no config.json)",
    ),
    "broken config": (
        lambda p: p.with_name("config.json").write_text("{"),
        "config.json: not readable as JSON",
    ),
    "no weights": (lambda p: p.unlink(), "no weights (model.safetensors"),
    "truncated weights": (truncate, "model.safetensors: not a readable safetensors file"),
    "corrupt header": (corrupt_header, "model.safetensors: not a readable safetensors file"),
    "header larger than the file": (
        huge_header,
        "model.safetensors: not a readable safetensors file",
    ),
    "missing shard": (missing_shard, "shard model-00002-of-00002.safetensors is missing (1 of 2)"),
    "path out of the folder": (
        path_out_of_the_folder,
        "shard '../../etc/passwd' is not a file name inside the folder",
    ),
    "missing tensor": (
        drop_tensor,
        "tensor model.layers.1.mlp.up_proj.weight is missing (1 of 21)",
    ),
    "two sets of weights": (
        single_file_beside_shards,
        "holds both model.safetensors and model.safetensors.index.json",
    ),
    "tied and not tied": (
        untie_by_hand,
        "config.json says tie_word_embeddings, and lm_head.weight differs",
    ),
    "model card that is no YAML": (
        lambda p: p.with_name("README.md").write_text("---\nversion: 1.5\nlicense: {a: 1}\n---\n"),
        "README.md: its front matter cannot be read",
    ),
    "unread tensor": (add_tensor, "no place for: model.layers.0.self_attn.sinks"),
    "missing tokenizer": (lambda p: p.with_name("tokenizer.json").unlink(), "tokenizer"),
    "broken tokenizer": (
        lambda p: p.with_name("tokenizer.json").write_text("[]"),
        "tokenizer.json",
    ),
    "vocabulary mismatch": (bigger_vocabulary, "384"),
    "unknown family": (
        lambda p: edit_json(p.with_name("config.json"), model_type="qwen-2"),
        "no model family 'qwen-2'; near: qwen2; known: apertus, arcee",
    ),
    "another class": (
        lambda p: edit_json(
            p.with_name("config.json"), architectures=["LlamaForSequenceClassification"]
        ),
        "LlamaForSequenceClassification is not a llama causal language model",
    ),
    "unread config key": (
        lambda p: edit_json(p.with_name("config.json"), logit_scale=2.0),
        "logit_scale, which ropeconv does not read for llama; if it has no bearing on logits pass "
        "--ignore-config-key",
    ),
    "unread rope key": (
        lambda p: edit_json(
            p.with_name("config.json"),
            rope_parameters={"rope_type": "linear", "factor": 2.0, "offset": 1},
        ),
        "offset",
    ),
    "quantised weights": (
        lambda p: edit_json(
            p.with_name("config.json"), quantization_config={"quant_method": "quip"}
        ),
        "quantization_config: no quant_method 'quip'",
    ),
    "wrong size": (
        lambda p: edit_json(p.with_name("config.json"), vocab_size=385),
        "has shape (384, 64), config.json says (385, 64)",
    ),
    "uneven heads": (
        lambda p: edit_json(p.with_name("config.json"), num_key_value_heads=3),
        "4 heads are not a multiple of 3",
    ),
}


@pytest.mark.parametrize("case", SOURCES)
def test_a_wrong_source(
    case: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, text = SOURCES[case]
    spoil(model / "model.safetensors")
    assert text in refused(
        ["gguf", str(model), "--pi-factor", "4", "-o", str(tmp_path / "out.gguf")], capsys
    )
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def cut_gguf(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def many_keys(data: bytes) -> bytes:
    return data[:16] + struct.pack("<Q", 1 << 60) + data[24:]


def long_string(data: bytes) -> bytes:
    return data[:24] + struct.pack("<Q", 1 << 62) + data[32:]


GGUFS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "not a checkpoint file that ropeconv reads"),
    "not GGUF": (lambda d: b"PK" + d[2:], "not a checkpoint file that ropeconv reads"),
    "truncated": (cut_gguf, "corrupt GGUF file (tensor"),
    "cut in the header": (
        lambda d: d[:2000],
        "corrupt GGUF file (it ends at byte 2000, an array of 384 strings does not fit",
    ),
    "more keys than bytes": (many_keys, "corrupt GGUF file"),
    "a string longer than the file": (long_string, "corrupt GGUF file (a string of 46116"),
    "another version": (
        lambda d: d[:4] + struct.pack("<I", 9) + d[8:],
        "version 9; ropeconv reads 2 and 3",
    ),
    "another architecture": (
        lambda d: d.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lama2", 1),
        "no GGUF architecture 'lama2'; near: llama",
    ),
}


@pytest.mark.parametrize("case", GGUFS)
def test_a_wrong_gguf_source(
    case: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, text = GGUFS[case]
    (tmp_path / "in.gguf").write_bytes(spoil((good / "good.gguf").read_bytes()))
    assert text in refused(
        ["gguf", str(tmp_path / "in.gguf"), "--pi-factor", "2", "-o", str(tmp_path / "out.gguf")],
        capsys,
    )
    assert [p.name for p in tmp_path.iterdir()] == ["in.gguf"]


OPTIONS: dict[str, tuple[list[str], str]] = {
    "factor 0": (["--pi-factor", "0"], "factor is 0.0; give a finite number above 1"),
    "factor -2": (["--yarn-factor", "-2"], "factor is -2.0; give a finite number above 1"),
    "factor nan": (["--pi-factor", "nan"], "factor is nan; give a finite number above 1"),
    "factor inf": (["--ntk-factor", "inf"], "factor is inf; give a finite number above 1"),
    "unknown kind": (["--scaling", "yarm", "--factor", "4"], "'yarm'; near: yarn"),
    "unknown parameter": (
        ["--scaling", "yarn", "--factor", "4", "--set", "beta_quick=3"],
        "beta_quick",
    ),
    "context that does not fit": (["--pi-factor", "4", "--context", "300"], "300"),
    "unknown type": (["--type", "Q4_K_X"], "Q4_K_X"),
    "unreachable method": (
        ["--scaling", "dynamic", "--factor", "4"],
        "--scaling ntk --factor 13.0 --context 1024",
    ),
    "unknown pre-tokenizer": (["--pre", "smolm"], "smollm"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_a_wrong_option(
    case: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, text = OPTIONS[case]
    assert text in refused(
        ["gguf", str(good / "model"), *options, "-o", str(tmp_path / "out.gguf")], capsys
    )
    assert not list(tmp_path.iterdir())


def test_no_such_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such file or folder" in refused(["gguf", str(tmp_path / "nothing")], capsys)


def test_output_exists(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.gguf"
    out.write_text("mine")
    assert "exists; pass --force to replace it" in refused(
        ["gguf", str(good / "model"), "-o", str(out)], capsys
    )
    assert out.read_text() == "mine"


def test_output_folder_is_missing(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no such folder" in refused(
        ["gguf", str(good / "model"), "-o", str(tmp_path / "no" / "out.gguf")], capsys
    )


def test_output_folder_is_not_writable(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # nothing stops root but a file system without files
    folder = Path("/sys") if os.geteuid() == 0 else tmp_path
    tmp_path.chmod(0o555)
    assert "the folder is not writable" in refused(
        ["gguf", str(good / "model"), "-o", str(folder / "out.gguf")], capsys
    )
    tmp_path.chmod(0o755)


def test_a_file_system_that_takes_no_more(good: Path, tmp_path: Path) -> None:
    """The kernel's own refusal in the middle: the file may not grow past 100 kB."""
    out = tmp_path / "out.gguf"
    out.write_text("mine")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = start(["gguf", str(good / "model"), "-o", str(out), "--force"], preexec_fn=limit)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert len(errors.strip().splitlines()) == 1
    assert "not written" in errors
    assert out.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["out.gguf"]


@pytest.mark.torch
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_the_middle(number: signal.Signals, smollm2: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_text("mine")
    process = start(["gguf", str(smollm2), "--type", "Q4_K_M", "-o", str(out), "--force"])
    part = tmp_path / ".out.gguf.part"
    for _ in range(3000):
        if part.exists() and part.stat().st_size:
            break
        time.sleep(0.01)
    assert part.exists()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.strip() == "ropeconv: interrupted; the previous output, if any, is as it was"
    assert out.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["out.gguf"]
