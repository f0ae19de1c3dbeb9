"""The values of --type, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from converters.to_onnx.quant._types import Blocks, weight_type, weight_types
from ropeconv.errors import CannotExpress, RopeconvError


def test_the_types_of_the_command_are_there_in_any_case() -> None:
    assert set(weight_types()) == {"fp32", "fp16", "int8", "int4", "keep", "q4f16"}
    assert weight_type("INT4") is weight_types()["int4"]


def test_options_replace_the_types_own() -> None:
    chosen = weight_type("int4", block_size=64, symmetric=True, accuracy_level=1)
    assert chosen.linear == Blocks(4, 64, symmetric=True)
    assert chosen.head == chosen.embedding == Blocks(4, 64, symmetric=True)
    assert chosen.accuracy_level == 1


@pytest.mark.parametrize(("name", "bits"), [("int4", 8), ("int8", 4)])
def test_head_bits_leave_the_layers_alone(name: str, bits: int) -> None:
    chosen = weight_type(name, head_bits=bits, block_size=64)
    assert chosen.linear == replace(weight_types()[name].linear, size=64)  # type: ignore[type-var]
    assert chosen.head == chosen.embedding == Blocks(bits, 64, symmetric=bits == 8)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("int44", {}, "near: int4"),
        ("q4", {}, "near: q4f16"),
        ("bnb4", {}, "known: fp16, fp32, int4, int8, keep, q4f16"),
        ("fp32", {"block_size": 32}, "--block-size is for types in blocks (int8, int4, q4f16)"),
        ("fp16", {"symmetric": False}, "--symmetric/--asymmetric is for types in blocks"),
        ("fp32", {"accuracy_level": 4}, "--accuracy-level is for types in blocks"),
        ("int4", {"block_size": 48}, "must be a power of two from 16 to 256"),
        ("int4", {"block_size": 8}, "must be a power of two from 16 to 256"),
        ("int4", {"block_size": 512}, "must be a power of two from 16 to 256"),
        ("int4", {"block_size": -32}, "must be a power of two from 16 to 256"),
        ("int4", {"head_bits": 6}, "the token embedding and the output head have 4 or 8"),
        ("fp16", {"head_bits": 8}, "--head-bits is for types in blocks"),
        ("int8", {"accuracy_level": 5}, "known: 0 (as the runtime likes), 1 (float32)"),
    ],
)
def test_refusals_name_what_to_do(name: str, options: dict[str, int], said: str) -> None:
    with pytest.raises(RopeconvError) as raised:
        weight_type(name, **options)  # type: ignore[arg-type]
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_blocks_shrink_until_they_fill_a_shared_row() -> None:
    blocks = Blocks(8, 128, symmetric=True)
    assert blocks.dividing(576, what="the embedding").size == 64
    assert blocks.dividing(2048, what="the embedding").size == 128
    with pytest.raises(CannotExpress, match="the embedding has rows of 72, no multiple of 16"):
        blocks.dividing(72, what="the embedding")
