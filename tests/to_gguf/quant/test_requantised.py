"""A GGUF file taken to another type: the bytes that llama.cpp's own quantiser makes of that file,
and a refusal wherever the weights would lose more than the user said.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.to_gguf.quant.types import FILE_TYPES
from ropeconv.errors import CannotExpress
from tests.checkpoints import save_checkpoint
from tests.command_line import refused, report, run
from tests.to_gguf.converting import PI, convert
from tests.to_gguf.quant.mix_cases import Stored, llama_quantize, read_stored
from tests.to_gguf.quant.test_quantised import wide

FAMILIES = ("llama", "qwen3_moe")
SMALLER = ("F16", "Q5_1", "Q4_K_M", "IQ4_XS")


@pytest.fixture(scope="module", params=FAMILIES)
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family's F32 file; 96 columns in some matrices make types fall back."""
    folder = tmp_path_factory.mktemp(request.param)
    config = wide(request.param)
    source = save_checkpoint(folder / "model", request.param, context=256, **config)
    return convert(source, folder / "F32.gguf", type="F32").files[0]


def by_llama_cpp(source: Path, kind: str, out: Path, *, again: bool) -> tuple[Stored, int]:
    assert llama_quantize(source, out, FILE_TYPES[kind].number, again=again) == 0
    return read_stored(out)


@pytest.mark.llama
def test_bytes_are_llama_quantizes_of_the_same_file(plain: Path, tmp_path: Path) -> None:
    source = convert(plain, tmp_path / "Q8_0.gguf", type="Q8_0").files[0]
    for kind in SMALLER:
        theirs = by_llama_cpp(source, kind, tmp_path / "theirs.gguf", again=True)
        done = convert(source, tmp_path / f"{kind}.gguf", type=kind, allow_requantize=True)
        ours = read_stored(done.files[0])
        assert ours == theirs
        assert "Q8_0" in done.emitted.details["requantised"]


@pytest.mark.llama
def test_the_first_rounding_is_seen(plain: Path, tmp_path: Path) -> None:
    """The original quantised once has other bytes than the file quantised twice."""
    source = convert(plain, tmp_path / "Q8_0.gguf", type="Q8_0").files[0]
    theirs = by_llama_cpp(source, "Q4_K_M", tmp_path / "theirs.gguf", again=True)
    assert read_stored(convert(plain, tmp_path / "once.gguf", type="Q4_K_M").files[0]) != theirs


@pytest.mark.llama
@pytest.mark.parametrize("float_type", ["F32", "F16", "BF16"])
def test_floats_need_no_option(float_type: str, plain: Path, tmp_path: Path) -> None:
    source = convert(plain, tmp_path / "floats.gguf", type=float_type).files[0]
    theirs = by_llama_cpp(source, "Q4_K_M", tmp_path / "theirs.gguf", again=False)
    done = convert(source, tmp_path / "out.gguf", type="Q4_K_M")
    assert read_stored(done.files[0]) == theirs
    assert done.emitted.details["requantised"] == ""


@pytest.mark.llama
def test_a_file_without_the_blocks_version_gets_it(plain: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    from tests.to_gguf.gguf_edits import edit

    version = "general.quantization_version"
    source = edit(plain, tmp_path / "floats.gguf", {version: None})
    done = convert(source, tmp_path / "out.gguf", type="Q4_K_M")
    by_llama_cpp(source, "Q4_K_M", tmp_path / "theirs.gguf", again=False)
    ours, theirs = (GGUFReader(path).fields for path in (done.files[0], tmp_path / "theirs.gguf"))
    assert version not in GGUFReader(source).fields
    assert ours[version].contents() == theirs[version].contents() == 2
    assert set(theirs) - set(ours) == set()


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("llama")
    config = wide("llama") | {"intermediate_size": 512, "num_hidden_layers": 6}
    source = save_checkpoint(folder / "model", "llama", context=256, **config)
    kinds = ("Q8_0", "Q6_K", "Q4_0")
    return {kind: convert(source, folder / f"{kind}.gguf", type=kind).files[0] for kind in kinds}


@pytest.mark.llama
def test_the_option_is_named_and_the_loss_is_said(
    quantised: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.gguf"
    command = ["gguf", str(quantised["Q8_0"]), "--type", "Q4_K_M", "-o", str(out)]
    said = refused(command, capsys)
    assert "quantised already (Q8_0)" in said
    assert "--allow-requantize" in said
    assert not out.exists()
    found = report([*command, "--allow-requantize", "--dry-run"], capsys)
    assert "44 tensors of Q8_0" in found["requantised"]
    shown, _ = run([*command, "--allow-requantize"], capsys)
    assert "requantised" in shown
    assert "that of Q4_K, Q6_K comes on top" in " ".join(shown.split())


@pytest.mark.parametrize("kind", ["Q6_K", "Q4_0"])
def test_coarser_sources_are_refused(kind: str, quantised: dict[str, Path], tmp_path: Path) -> None:
    for wanted in ("Q8_0", "Q2_K", "F16"):
        with pytest.raises(CannotExpress, match=r"goes from Q8_0 alone: .* leave --type out"):
            convert(quantised[kind], tmp_path / "out.gguf", type=wanted, allow_requantize=True)
        with pytest.raises(CannotExpress, match="quantised already") as told:
            convert(quantised[kind], tmp_path / "out.gguf", type=wanted)
        assert "--allow-requantize" not in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_its_own_type_is_a_copy(quantised: dict[str, Path], tmp_path: Path) -> None:
    for kind, source in quantised.items():
        done = convert(source, tmp_path / f"{kind}.gguf", PI, type=kind)
        assert read_stored(done.files[0]) == read_stored(source)


@pytest.mark.llama
@pytest.mark.torch
def test_the_proof_judges_the_second_rounding(quantised: dict[str, Path], tmp_path: Path) -> None:
    from ropeconv.api import verify
    from tests.to_gguf.gguf_edits import edit

    out = tmp_path / "out.gguf"
    convert(quantised["Q8_0"], out, PI, type="Q4_K_M", allow_requantize=True)
    assert verify(out, tokens=320).ok

    def spoil(data: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros_like(data[: len(data) // 2]), data[len(data) // 2 :]])

    edit(out, tmp_path / "spoilt.gguf", tensors={"blk.1.ffn_down.weight": spoil})
    assert not verify(tmp_path / "spoilt.gguf", reference=quantised["Q8_0"], tokens=320).ok
