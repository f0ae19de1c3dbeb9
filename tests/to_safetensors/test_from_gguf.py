"""GGUF in, folder out, for every family: the numbers of the file, loaded and run by
transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.api import convert as convert_source
from ropeconv.extend import ScalingRequest
from ropeconv.target import Emitted
from tests.checkpoints import save_checkpoint
from tests.families import FAMILIES, extra, model_logits, random_ids, reference
from tests.methods import FACTOR, L
from tests.to_safetensors.loading import LACKING_IN_4, load_in

IDS = random_ids(FACTOR * L)
CENTRED = {
    "gemma",
    "gemma2",
    "gemma3_text",
    "nemotron",
    "qwen3_5_moe_text",
    "qwen3_5_text",
    "qwen3_next",
}
# families that llama.cpp has an architecture for without being asked
HOUSED = [family for family in FAMILIES if family not in {"cwm", "ministral", "persimmon"}]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("from-gguf")
    return {
        family: save_checkpoint(root / f"model-{n}", family, context=L, **extra(family))
        for n, family in enumerate(FAMILIES)
    }


def to_gguf(
    source: Path, out: Path, request: ScalingRequest | None = None, kind: str = "F32"
) -> Path:
    return convert_source(source, "gguf", out, scaling=request, type=kind).files[0]


def to_folder(
    source: Path, out: Path, request: ScalingRequest | None = None, **options: Any
) -> Emitted:
    return convert_source(source, "safetensors", out, scaling=request, **options).emitted


@pytest.mark.halved
@pytest.mark.llama
@pytest.mark.parametrize("family", HOUSED)
def test_weights_and_logits_are_the_checkpoints(
    family: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    """Through GGUF and back, then scaled: transformers finds the weights of the folder that the
    GGUF file was made from.
    """
    from safetensors.numpy import load_file
    from transformers import AutoModelForCausalLM

    gguf = to_gguf(sources[family], tmp_path / "plain.gguf")
    to_folder(gguf, tmp_path / "out", ScalingRequest(kind="linear", factor=FACTOR))
    before, after = (
        load_file(sources[family] / "model.safetensors"),
        load_file(tmp_path / "out" / "model.safetensors"),
    )
    for name, value in after.items():
        # GGUF itself keeps 1 + w, -exp of a rate, and multiples, rounded
        shifted = family in CENTRED and ("norm" in name or name.endswith("A_log"))
        shifted |= family == "falcon_h1"
        assert (
            np.allclose(value, before[name], rtol=2.0**-23, atol=2.0**-23)
            if shifted
            else np.array_equal(value, before[name])
        ), name
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="float32").eval()
    wanted = model_logits(reference(sources[family], family, "linear"), IDS)
    # llama.cpp has no word for attention biases that are absent or an unscaled partial rotation:
    # the class must agree
    assert np.abs(model_logits(model, IDS) - wanted).max() <= 2e-5 * np.abs(wanted).max()


@pytest.mark.llama
def test_transformers_4_takes_them_too(sources: dict[str, Path], tmp_path: Path) -> None:
    """A config made from GGUF keys: both majors find the same model in it."""
    known = [family for family in HOUSED if family not in LACKING_IN_4]
    folders = [tmp_path / family for family in known]
    for family, folder in zip(known, folders, strict=True):
        gguf = to_gguf(sources[family], tmp_path / "plain.gguf")
        to_folder(gguf, folder, ScalingRequest(kind="ntk", factor=FACTOR))
        gguf.unlink()
    newer, older = (load_in(major, folders, tmp_path) for major in (5, 4))
    for folder in folders:
        found, wanted = (numbers[f"{folder}|logits {FACTOR * L}"] for numbers in (older, newer))
        # transformers 4 keeps the weights of Apertus' activation in bfloat16
        slack = 2e-3 if folder.name == "apertus" else 1e-4
        assert np.abs(found - wanted).max() <= slack * np.abs(wanted).max(), folder.name


@pytest.mark.parametrize("kind", ["F32", "F16"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text", "gpt_neox"])
def test_gguf_to_folder_to_gguf_keeps_every_bit(
    family: str, kind: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    from gguf import GGUFReader

    first = to_gguf(sources[family], tmp_path / "first.gguf", kind=kind)
    emitted = to_folder(first, tmp_path / "folder")
    second = to_gguf(tmp_path / "folder", tmp_path / "second.gguf", kind=kind)
    before, after = (
        {t.name: (t.tensor_type, t.data.tobytes()) for t in GGUFReader(path).tensors}
        for path in (first, second)
    )
    assert set(after) == set(before)
    assert [name for name in before if after[name] != before[name]] == []
    assert emitted.details["rounded_norms"] == 0


def test_norms_that_cannot_lose_their_one_exactly_are_counted(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    """A norm below 0.5 has bits that weight - 1 cannot hold: said, not hidden."""
    import shutil

    from safetensors.numpy import load_file, save_file

    source = shutil.copytree(sources["gemma3_text"], tmp_path / "source")
    tensors = dict(load_file(source / "model.safetensors"))
    tensors["model.norm.weight"] = tensors["model.norm.weight"].copy()
    tensors["model.norm.weight"][:3] = np.float32(-0.9) + np.float32(2.0**-26) * np.arange(
        1, 4, dtype=np.float32
    )
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    gguf = to_gguf(source, tmp_path / "first.gguf")
    # GGUF's own rounding has come before
    assert to_folder(gguf, tmp_path / "folder").details["rounded_norms"] == 0
    edited = edit_f32(gguf, "output_norm.weight", np.nextafter(np.float32(0.1), np.float32(1)))
    assert to_folder(edited, tmp_path / "folder2").details["rounded_norms"] == 1


def edit_f32(path: Path, tensor: str, value: np.float32) -> Path:
    """The file with the first value of a tensor replaced."""
    from gguf import GGUFReader

    reader = GGUFReader(path, "r+")
    found = next(entry for entry in reader.tensors if entry.name == tensor)
    found.data[0] = value
    reader.data.flush()
    return path


@pytest.mark.llama
def test_smollm2_there_and_back(tmp_path: Path) -> None:
    """The packaged Q4_1 file: its numbers, dequantised once, and its tokens in many scripts."""
    import runpy

    from gguf import GGUFReader, dequantize

    from converters.to_gguf.run import tokenize
    from ropeconv.proof.tokens.texts import SCRIPT_SAMPLES

    sample = runpy.run_path(str(Path(__file__).parents[2] / "samples" / "make_checkpoint.py"))
    packaged = sample["packaged_smollm2"]()
    first = to_folder(packaged, tmp_path / "folder")
    assert first.type == "F32"
    back = to_gguf(tmp_path / "folder", tmp_path / "back.gguf")
    before = {
        tensor.name: dequantize(tensor.data, tensor.tensor_type)
        for tensor in GGUFReader(packaged).tensors
    }
    after = {tensor.name: tensor.data for tensor in GGUFReader(back).tensors}
    assert set(after) == set(before)
    assert [
        name for name in before if not np.array_equal(before[name].ravel(), after[name].ravel())
    ] == []
    assert len(SCRIPT_SAMPLES) >= 10
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "folder")
    for name, text in SCRIPT_SAMPLES.items():
        ids = tokenize(packaged, text)
        assert tokenize(back, text) == ids, name
        assert tokenizer(text)["input_ids"] == ids, name
