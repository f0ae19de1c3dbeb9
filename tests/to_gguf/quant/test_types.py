"""File types against llama.cpp's header and gguf's tables."""

from __future__ import annotations

import pytest

from converters.to_gguf.quant.types import ALIASES, FILE_TYPES, NOT_WRITTEN, file_type
from ropeconv.errors import CannotExpress, RopeconvError


@pytest.mark.parametrize("name", FILE_TYPES)
def test_numbers_and_bits_are_upstreams(name: str) -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

    row = FILE_TYPES[name]
    upstream = "ALL_F32" if name == "F32" else f"MOSTLY_{name}"
    values, size = GGML_QUANT_SIZES[GGMLQuantizationType[row.base]]
    assert row.number == LlamaFileType[upstream]
    assert row.bits_per_weight == 8 * size / values
    assert row.quantised == (values > 1)


def test_every_other_llama_cpp_type_has_a_reason() -> None:
    from gguf import LlamaFileType

    upstream = {
        member.name.removeprefix("ALL_").removeprefix("MOSTLY_") for member in LlamaFileType
    } - {"GUESSED"}
    upstream -= {name for name in upstream if name.startswith("Q4_0_")}  # taken out of llama.cpp
    assert upstream - FILE_TYPES.keys() <= NOT_WRITTEN.keys()
    assert not FILE_TYPES.keys() & NOT_WRITTEN.keys()


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("q4_k_m", "Q4_K_M"),
        ("Q4_K", "Q4_K_M"),
        ("q3_k", "Q3_K_M"),
        ("Q5_k", "Q5_K_M"),
        ("f16", "F16"),
    ],
)
def test_names_in_any_case_and_aliases(given: str, name: str) -> None:
    assert file_type(given) is FILE_TYPES[name]
    assert not ALIASES.keys() & FILE_TYPES.keys()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("q1_0", "GGUF type Q1_0 is for weights trained in that very format"),
        ("NVFP4", "trained in that very format"),
    ],
)
def test_types_that_are_not_written_say_why(given: str, says: str) -> None:
    with pytest.raises(CannotExpress, match=says) as error:
        file_type(given)
    assert "; take Q" in str(error.value)


def test_an_unknown_name_gets_near_misses() -> None:
    with pytest.raises(
        RopeconvError, match=r"no GGUF type 'Q4_KM'; near: .*Q4_K_M.*; known: BF16, F16"
    ):
        file_type("q4_km")
