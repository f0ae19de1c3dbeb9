"""Importance matrices in files: made by the command, read in both of llama.cpp's forms, used."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf.matrix.files import read_importance
from converters.to_gguf.quant.types import FILE_TYPES
from ropeconv.errors import CheckpointError
from ropeconv.extend import ScalingRequest
from ropeconv.prepare import prepare
from ropeconv.proof.importance import run as running
from ropeconv.proof.importance.question import Question
from ropeconv.registry import targets
from tests.checkpoints import save_checkpoint
from tests.command_line import refused, report, run
from tests.to_gguf.converting import PI, convert
from tests.to_gguf.gguf_edits import edit
from tests.to_gguf.quant.mix_cases import read_stored
from tests.to_gguf.quant.test_quantised import wide
from tests.to_gguf.quant.weighed import changed, made_up, means_of, quantise_weighed

L = 256
SIZES = ("--tokens", "480", "--chunk-size", "120")
SHORT = ("--tokens", "64", "--chunk-size", "32")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("imatrix") / "model", "llama", context=L)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("Every word of this book is true, and some are long.\n" * 60)
    return path


@pytest.fixture(scope="module")
def matrix(source: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by the command, under PI x 4."""
    out = tmp_path_factory.mktemp("made") / "m.gguf"
    make(source, text, out)
    return out


def make(source: Path, text: Path, out: Path, *more: str) -> None:
    from ropeconv.cli import main

    with pytest.raises(SystemExit) as done:
        main(command(source, text, out, *more))
    assert done.value.code in (0, None)


def command(source: Path, text: Path, out: Path, *more: str) -> list[str]:
    options = ["--pi-factor", "4", "--text", str(text), *SIZES, "-o", str(out), "--quiet", *more]
    return ["imatrix", str(source), *options]


@pytest.mark.torch
def test_the_file_is_llama_cpps(matrix: Path, text: Path) -> None:
    """By gguf-py: kinds of keys, names and shapes as llama-imatrix writes them."""
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType

    reader = GGUFReader(matrix)
    keys = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert keys["general.type"].contents() == "imatrix"
    assert keys["imatrix.datasets"].contents() == [str(text)]
    kinds = (GGUFValueType.ARRAY, GGUFValueType.STRING)
    assert keys["imatrix.datasets"].types[:2] == list(kinds)
    for name, value in (("chunk_count", 4), ("chunk_size", 120)):
        assert keys[f"imatrix.{name}"].types == [GGUFValueType.UINT32]
        assert keys[f"imatrix.{name}"].contents() == value
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    stems = {f"blk.{layer}.{name}.weight" for layer in (0, 1) for name in matrices}
    assert tensors.keys() == {f"{stem}{end}" for stem in stems for end in (".in_sum2", ".counts")}
    assert [name.rpartition(".")[0] for name in tensors] == sorted([*stems, *stems])
    for stem in stems:
        columns = 96 if "ffn_down" in stem else 64
        sums, counts = tensors[f"{stem}.in_sum2"], tensors[f"{stem}.counts"]
        assert sums.tensor_type == counts.tensor_type == GGMLQuantizationType.F32
        assert (*sums.shape, *counts.shape) == (columns, 1, 1, 1)
        assert counts.data.item() == 480
    same = [tensors[f"blk.0.attn_{name}.weight.in_sum2"].data.tobytes() for name in "qkv"]
    assert len(set(same)) == 1


@pytest.mark.torch
def test_a_run_that_was_interrupted_goes_on(
    source: Path, text: Path, matrix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "m.gguf"
    monkeypatch.setattr(running, "TOGETHER", 120)
    model = prepare(source, ScalingRequest(kind="linear", factor=4))
    files: Any = targets()["gguf"].importance
    question = Question(text=(text,), tokens=480, chunk_size=120)
    seen = []

    def stop(_: str, done: int, __: int) -> None:
        seen.append(done)
        if done > 240:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        running.make_importance(model, out, files=files, question=question, progress=stop)
    left = read_importance([out])
    assert (left.chunks, left.about["done"]) == (2, 2)
    made = running.make_importance(model, out, files=files, question=question)
    assert made.resumed == 2
    whole, again = means_of(matrix), means_of(out)
    assert whole.keys() == again.keys()
    for name, means in whole.items():
        np.testing.assert_allclose(again[name], means, rtol=1e-6)
    assert read_importance([out]).about == read_importance([matrix]).about | {
        "source": read_importance([out]).about["source"]
    }


@pytest.mark.torch
def test_another_question_is_not_gone_on_with(
    source: Path, text: Path, matrix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = matrix.read_bytes()
    for more in ((), ("--pi-factor", "3"), ("--process-output",)):
        assert "exists already; replace it with --force" in refused(
            command(source, text, matrix, *more), capsys
        )
    assert matrix.read_bytes() == before


@pytest.mark.torch
def test_two_are_added_up(
    source: Path, text: Path, matrix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, both = tmp_path / "o.gguf", tmp_path / "both.gguf"
    make(source, text, other, "--chunk-size", "60", "--tokens", "60")
    parts = ["--in-file", str(matrix), "--in-file", str(other)]
    told = report(["imatrix", str(source), *parts, "-o", str(both)], capsys)
    assert (told["chunks"], told["matrices"]) == (5, 14)
    one, two, added = means_of(matrix), means_of(other), means_of(both)
    for name, means in added.items():
        np.testing.assert_allclose(means, (480 * one[name] + 60 * two[name]) / 540, rtol=1e-6)


def older(means: Mapping[str, np.ndarray], *, calls: int = 3) -> bytes:
    """The older form, as llama.cpp writes it: means times calls."""
    parts = [struct.pack("<i", len(means))]
    for name, values in means.items():
        flat = (values.reshape(-1) * np.float32(calls)).astype("<f4")
        head = struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, flat.size)
        parts.append(head + flat.tobytes())
    return b"".join([*parts, struct.pack("<ii", 7, 8), b"book.txt"])


def test_the_older_form_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.dat"
    means = made_up({"blk.0.ffn_up_exps.weight": (3, 8, 32), "blk.0.attn_q.weight": (8, 32)})
    path.write_bytes(older(means))
    found = read_importance([path])
    assert (found.texts, found.chunks) == (("book.txt",), 7)
    for name, values in means.items():
        read = found.sums[name].means.reshape(values.shape)
        assert np.array_equal(read, values * np.float32(3) / np.float32(3))
    whole = older(means)
    for cut in (3, 4, 30, len(whole) - 600):
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match=r"no importance matrix of llama\.cpp's"):
            read_importance([path])
    path.write_bytes(older({name: -values for name, values in means.items()}))
    with pytest.raises(CheckpointError, match=r"sums of .* that no squares have"):
        read_importance([path])
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match="cannot be added to another"):
        read_importance([path, path])


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"blk.0.attn_q.weight.counts": None}, r"no counts for blk\.0\.attn_q"),
        ({"blk.0.attn_q.weight.in_sum2": None}, "counts, which belongs to no matrix"),
        ({"blk.0.attn_q.weight.in_sum2": lambda x: -x}, "that no squares have"),
        ({"blk.0.attn_q.weight.in_sum2": lambda x: x * np.nan}, "that no squares have"),
    ],
)
@pytest.mark.torch
def test_a_damaged_file_is_refused(
    fault: Mapping[str, Any], says: str, matrix: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=says):
        read_importance([changed(matrix, tmp_path / "m.gguf", fault)])


FAMILIES = {
    # rows in another order; another architecture's names; experts; columns in another order;
    # keys and values that are absorbed, of which there is nothing
    "llama": "Q4_K_M",
    "qwen2": "Q4_0",
    "phi3": "Q3_K_M",
    "mixtral": "Q2_K",
    "gpt_oss": "Q4_K_M",
    "qwen3_5_text": "Q4_1",
    "deepseek_v3": "Q4_K_M",
}


@pytest.mark.llama
@pytest.mark.torch
@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_has_the_bytes_of_llama_quantize(family: str, tmp_path: Path) -> None:
    """From a checkpoint to its matrix to its file, against llama.cpp's quantiser on the F32 file,
    given the matrix as gguf-py reads it.
    """
    source = save_checkpoint(tmp_path / "model", family, context=L, **wide(family))
    made, f32 = tmp_path / "m.gguf", tmp_path / "f32.gguf"
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be: that is the question. " * 40)
    make(source, text, made, *SHORT)
    convert(source, f32, PI, type="F32")
    weights = means_of(made)
    matrices = {name for name, (_, data) in read_stored(f32)[0].items() if len(data) > 60_000}
    absorbed = {name for name in matrices if "_b.weight" in name and family == "deepseek_v3"}
    assert weights.keys() >= {n for n in matrices if n.startswith("blk.")} - absorbed
    kind = FAMILIES[family]
    theirs, ours, other = (tmp_path / f"{name}.gguf" for name in ("theirs", "ours", "other"))
    assert quantise_weighed(f32, theirs, FILE_TYPES[kind].number, weights) == 0
    convert(source, ours, PI, type=kind, imatrix=[made])
    assert read_stored(ours) == read_stored(theirs)
    turned = {f"{n}.in_sum2": lambda x: x[:, ::-1] for n in weights if "attn_output" in n}
    wrong = changed(made, tmp_path / "wrong.gguf", turned)
    convert(source, other, PI, type=kind, imatrix=[wrong])
    assert read_stored(other) != read_stored(ours)


@pytest.mark.llama
@pytest.mark.torch
def test_the_file_says_by_what_it_was_weighed(
    source: Path, matrix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gguf import GGUFReader

    out = tmp_path / "out.gguf"
    options = ["--pi-factor", "4", "--type", "Q4_0", "--imatrix", str(matrix), "-o", str(out)]
    told = report(["gguf", str(source), *options], capsys)
    assert told["weighed"].startswith("14 of 16 matrices by")
    assert told["weighed"].endswith("(4 windows); not weighed: token_embd.weight, output.weight")
    keys = {name: field.contents() for name, field in GGUFReader(out).fields.items()}
    assert keys["quantize.imatrix.file"] == "m.gguf"
    assert keys["quantize.imatrix.dataset"] == "text.txt"
    assert keys["quantize.imatrix.entries_count"] == 14
    assert keys["quantize.imatrix.chunks_count"] == 4
    stdout, _ = run(["verify", str(out), "--tokens", "100", "--json"], capsys)
    assert json.loads(stdout)["ok"]


@pytest.mark.llama
@pytest.mark.torch
@pytest.mark.parametrize(
    ("family", "kind"),
    [("llama", "IQ3_XXS"), ("llama", "IQ2_S"), ("llama", "TQ1_0"), ("mixtral", "MXFP4_MOE")],
)
def test_a_file_of_few_bits_is_proven_and_a_fault_in_it_is_seen(
    family: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Planted fault: the rows of one matrix the other way round."""
    config = wide(family) | {"num_hidden_layers": 2}
    source = save_checkpoint(tmp_path / "model", family, context=L, **config)
    f32, made, out = (tmp_path / f"{name}.gguf" for name in ("f32", "m", "out"))
    convert(source, f32, PI, type="F32")
    matrices = shapes_in(f32)
    (tmp_path / "m.dat").write_bytes(older(made_up(matrices)))
    convert(source, out, PI, type=kind, imatrix=[tmp_path / "m.dat"])
    stdout, _ = run(["verify", str(out), "--tokens", "96", "--json"], capsys)
    assert json.loads(stdout)["type"] == kind
    name = "blk.1.ffn_down_exps.weight" if family == "mixtral" else "blk.1.ffn_down.weight"
    wrong = edit(out, made, tensors={name: lambda data: np.flip(data, -2).copy()})
    stdout, _ = run(["verify", str(wrong), "--tokens", "96", "--json"], capsys, code=1)
    failed = [one["name"] for one in json.loads(stdout)["rungs"] if one["status"] == "fail"]
    assert "weights" in failed


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape, rows of a matrix before its columns, by gguf-py."""
    from gguf import GGUFReader

    return {one.name: tuple(map(int, one.shape[::-1])) for one in GGUFReader(path).tensors}


@pytest.mark.llama
@pytest.mark.torch
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--type", "IQ2_XS"], "IQ2_XS: blk.0.attn_k.weight in .* needs an importance matrix"),
        (["--type", "Q2_K_S"], "Q2_K_S: .* needs an importance matrix: give --imatrix FILE"),
        (["--type", "F16", "--imatrix", "M"], "--imatrix weighs what is rounded to blocks"),
        (["--imatrix", "M"], r"nothing is in this file \(F16\)"),
        (["--type", "Q4_0", "--imatrix", "OTHER"], "is of another model"),
        (["--type", "Q4_0", "--imatrix", "MODEL"], "a GGUF file, and no importance matrix"),
        (["--tensor-type", "attn_v=Q8_0"], "give a --type like Q4_K_M too"),
        (
            ["--type", "Q4_0", "--token-embedding-type", "iq2_xxs"],
            "token_embd.weight has rows of 64 values, no whole number of IQ2_XXS blocks",
        ),
    ],
)
def test_what_cannot_be_weighed_is_refused_before_a_file_is_opened(
    options: list[str],
    says: str,
    matrix: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    narrow = says.startswith("token_embd") or "OTHER" in options or "64 values" in says
    config = {} if narrow else wide("llama")
    source = save_checkpoint(tmp_path / "model", "llama", context=L, **config)
    names = {"M": str(matrix), "MODEL": str(tmp_path / "f32.gguf"), "OTHER": str(tmp_path / "o")}
    if "MODEL" in options:
        convert(source, tmp_path / "f32.gguf", type="F32")
    if "OTHER" in options:
        means = made_up({"blk.0.attn_qkv.weight": (8, 64)})
        (tmp_path / "o").write_bytes(older(means))
    out = tmp_path / "out.gguf"
    given = [names.get(word, word) for word in options]
    line = refused(["gguf", str(source), *given, "-o", str(out)], capsys)
    import re

    assert re.search(says, line), line
    assert not out.exists()
