"""What `choose_types` refuses: a closed world of decoder tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from converters.to_gguf.archs import architectures
from converters.to_gguf.quant import mix
from converters.to_gguf.quant.exceptions import Exceptions
from converters.to_gguf.quant.types import FILE_TYPES
from ropeconv.errors import CannotExpress, CheckpointError

LLAMA: dict[str, Any] = {
    "arch": architectures()["llama"],
    "n_layer": 1,
    "n_head": 8,
    "n_head_kv": 8,
}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("blk.0.ffn_down_exps.weight", (2, 4, 8, 256)),
        ("blk.0.ffn_foo_exps.weight", (4, 8, 256)),
        ("blk.0.ffn_down.weight", (4, 8, 256)),
        ("blk.0.attn_q_c.weight", (4, 256)),
        ("blk.0.attn_q.weight", (2, 4, 256)),
        ("position_embd.weight", (4, 256)),
    ],
)
@pytest.mark.parametrize("file_type", ["F16", "Q4_K_M"])
def test_tensors_outside_the_rules_are_refused(
    name: str, shape: tuple[int, ...], file_type: str
) -> None:
    with pytest.raises(CannotExpress, match=f"no rule says how llama.cpp stores {name}") as error:
        mix.choose_types([(name, shape)], FILE_TYPES[file_type], **LLAMA)
    assert "\n" not in str(error.value)


def test_architectures_with_their_own_rules_are_refused() -> None:
    falcon = replace(LLAMA["arch"], name="falcon", mix=Exceptions(own_rules=True))
    with pytest.raises(CannotExpress, match="quantises falcon by rules of its own"):
        mix.choose_types([], FILE_TYPES["Q4_K_M"], **LLAMA | {"arch": falcon})


def test_a_name_twice_is_refused() -> None:
    tensors = [("output.weight", (2, 256))] * 2
    with pytest.raises(CheckpointError, match=r"output\.weight is listed twice"):
        mix.choose_types(tensors, FILE_TYPES["F16"], **LLAMA)
